"""Anthropic's own SDK against the fake: run by .venv-clients, prints one JSON object a scenario.

usage: sdk_anthropic.py <url of the fake> <key> <scenario, or scenario:another key>...
"""

import json
import sys

import anthropic  # type: ignore[import-not-found]  # it lives in .venv-clients


def play(url: str, key: str, scenario: str) -> dict[str, object]:
    client = anthropic.Anthropic(api_key=key, base_url=f"{url}/{scenario}", max_retries=0)
    asked = [{"role": "user", "content": "Hi"}]
    try:
        with client.messages.stream(model="claude-opus-4-8", max_tokens=64, messages=asked) as stream:
            message = stream.get_final_message()
    except anthropic.APIError as error:
        return {"error": type(error).__name__, "status": getattr(error, "status_code", None), "said": str(error)}
    return dict(message.model_dump(mode="json", include={"content", "stop_reason", "usage"}))


for asked in sys.argv[3:]:
    scenario, _, key = asked.partition(":")
    print(json.dumps({"scenario": asked, **play(sys.argv[1], key or sys.argv[2], scenario)}))
