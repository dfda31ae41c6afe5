"""Cohere's chat, version 2: each line an event. https://docs.cohere.com/v2/docs/streaming"""

import json
from collections.abc import Mapping

from tests.vendors.fake import KEY, Answer, FakeVendor, Json, Request


def _said(kind: str, index: int | None = None, **message: Json) -> Json:
    event: Json = {"type": kind, "delta": {"message": message}}
    return event if index is None else event | {"index": index}


def _text(text: str) -> Json:
    return _said("content-delta", 0, content={"text": text})


def _call(kind: str, index: int, arguments: str, **more: Json | str) -> Json:
    function: Json = {"arguments": arguments, **({"name": more.pop("name")} if "name" in more else {})}
    return _said(f"tool-call-{kind}", index, tool_calls={**more, "function": function})


def _end(reason: str, **more: str) -> Json:
    tokens = {"input_tokens": 12, "output_tokens": 2}
    usage: Json = {"billed_units": {"input_tokens": 1, "output_tokens": 2}, "tokens": tokens, "cached_tokens": 5}
    return {"type": "message-end", "delta": {"finish_reason": reason, "usage": usage, **more}}


_BEGUN: list[Json] = [
    _said("message-start", role="assistant") | {"id": "c14c80c3"},  # type: ignore[arg-type]
    _said("content-start", 0, content={"type": "text", "text": ""}),
    _text("Hel"),
]

ANSWERS: Mapping[str, Answer] = {
    "text": Answer([*_BEGUN, _text("lo"), {"type": "content-end", "index": 0}, _end("COMPLETE")]),
    "long": Answer([*_BEGUN, _end("MAX_TOKENS")]),
    "thinking": Answer(
        [
            *_BEGUN[:1],
            _said("content-delta", 0, content={"thinking": "Two and two"}),
            _said("content-delta", 1, content={"text": "4"}),
            _end("COMPLETE"),
        ]
    ),
    "tools": Answer(
        [
            *_BEGUN[:1],
            _said("tool-plan-delta", tool_plan={}),
            _call("start", 0, "", id="get_weather_1", type="function", name="get_weather"),
            _call("delta", 0, '{"city": '),
            _call("delta", 0, '"Paris"}'),
            {"type": "tool-call-end", "index": 0},
            _call("start", 1, '{"zone": "CET"}', id="get_time_2", type="function", name="get_time"),
            {"type": "tool-call-end", "index": 1},
            _end("TOOL_CALL"),
        ]
    ),
    "cut": Answer(_BEGUN),
    "hang": Answer(_BEGUN, ending="hang"),
    "error_midway": Answer([*_BEGUN, _end("ERROR", error="Overloaded")]),
    "rate_limit": Answer(status=429, error={"message": "You are using a Trial key"}, headers={"retry-after": "7"}),
}


class FakeCohere(FakeVendor):
    """Refuses a wrong key."""

    path = "/v2/chat"
    content_type = "application/stream+json"
    answers = ANSWERS

    def fault(self, request: Request) -> Answer | None:
        known = request.headers.get("authorization", "").lower() == f"bearer {KEY}"
        return None if known else Answer(status=401, error={"message": "invalid api token"})

    def frame(self, event: Json) -> bytes:
        return json.dumps(event).encode() + b"\n"
