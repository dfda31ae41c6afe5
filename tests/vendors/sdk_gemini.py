"""Google's own SDK against the fake: run by .venv-clients, prints one JSON object a scenario.

usage: sdk_gemini.py <url of the fake> <key> <scenario, or scenario:another key>...
"""

import json
import sys

from google import genai  # type: ignore[import-not-found]  # it lives in .venv-clients
from google.genai import errors  # type: ignore[import-not-found]


def play(url: str, key: str, scenario: str) -> dict[str, object]:
    client = genai.Client(api_key=key, http_options={"base_url": f"{url}/{scenario}", "api_version": "v1beta"})
    try:
        chunks = list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="Hi"))
    except errors.APIError as error:
        return {"error": type(error).__name__, "status": error.code, "said": str(error)}
    candidates = [chunk.candidates[0] for chunk in chunks]
    parts = [part.model_dump(mode="json", exclude_none=True) for it in candidates for part in it.content.parts]
    usage = chunks[-1].usage_metadata.model_dump(mode="json", exclude_none=True)
    return {"parts": parts, "finish_reason": candidates[-1].finish_reason, "usage": usage}


for asked in sys.argv[3:]:
    scenario, _, key = asked.partition(":")
    print(json.dumps({"scenario": asked, **play(sys.argv[1], key or sys.argv[2], scenario)}))
