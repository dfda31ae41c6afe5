"""Azure's OpenAI service: OpenAI's chunks under a deployment's own path, with `api-version` and `api-key`."""

import json
from collections.abc import Mapping

from tests.vendors.fake import KEY, Answer, FakeVendor, Json, Request

_REFUSED = {"error": {"code": "429", "message": "Requests have exceeded the rate limit of your tier"}}
_FILTERED = {"error": {"code": "content_filter", "param": "prompt", "message": "The response was filtered"}}


def _chunk(index: int = 0, reason: str | None = None, **delta: str) -> Json:
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    return _bare() | {"choices": [choice]}


def _bare() -> Json:
    return {"id": "chatcmpl-az", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": []}


_USAGE = _bare() | {"usage": {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14}}
_BEGUN = [_bare() | {"prompt_filter_results": []}, _chunk(role="assistant", content=""), _chunk(content="Hel")]

ANSWERS: Mapping[str, Answer] = {
    "text": Answer([*_BEGUN, _chunk(content="lo"), _chunk(reason="stop"), _USAGE, {"done": True}]),
    "refused": Answer([_chunk(role="assistant", refusal="I can't."), _chunk(reason="stop"), _USAGE, {"done": True}]),
    "reasoned": Answer(
        [_chunk(role="assistant", reasoning="Well"), _chunk(content="4"), _chunk(reason="stop"), _USAGE]
    ),
    "sources": Answer([it | {"citations": ["https://a"]} for it in (*_BEGUN, _chunk(reason="stop"), _USAGE)]),
    "cut": Answer(_BEGUN),
    "cut_but_done": Answer([*_BEGUN, {"done": True}]),
    "reset": Answer(_BEGUN, ending="reset"),
    "hang": Answer(_BEGUN, ending="hang"),
    "rate_limit": Answer(status=429, error=_REFUSED, headers={"retry-after-ms": "1500", "retry-after": "2"}),
    "filtered": Answer(status=400, error=_FILTERED),
    "server_error": Answer(status=500, error={"error": {"code": "500", "message": "Internal server error"}}),
}


class FakeAzure(FakeVendor):
    """Refuses a wrong key and a missing version."""

    path = "/openai/deployments/{deployment}/chat/completions"
    answers = ANSWERS

    def fault(self, request: Request) -> Answer | None:
        if request.headers.get("api-key") != KEY:
            return Answer(status=401, error={"error": {"code": "401", "message": "Access denied"}})
        if "api-version=" not in request.path:
            return Answer(status=404, error={"error": {"code": "404", "message": "Resource not found"}})
        return None

    def frame(self, event: Json) -> bytes:
        return b"data: [DONE]\n\n" if "done" in event else f"data: {json.dumps(event)}\n\n".encode()
