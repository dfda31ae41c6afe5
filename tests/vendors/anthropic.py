"""Anthropic's Messages API, version 2023-06-01: named server-sent events, one content block after the other."""

import json
from collections.abc import Mapping

from tests.vendors.fake import KEY, Answer, FakeVendor, Json, Request

VERSIONS = ("2023-06-01", "2026-10-21")


def _begin() -> list[Json]:
    usage: Json = {
        "input_tokens": 12,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 5,
        "output_tokens": 1,
        "service_tier": "standard",
    }
    message: Json = {
        "id": "msg_01FakeFakeFakeFake",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    return [{"type": "message_start", "message": message}, {"type": "ping"}]


def _end(reason: str) -> list[Json]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [{"type": "message_delta", "delta": delta, "usage": {"output_tokens": 9}}, {"type": "message_stop"}]


def _block(index: int, block: Json, *deltas: Json, done: bool = True) -> list[Json]:
    events: list[Json] = [{"type": "content_block_start", "index": index, "content_block": block}]
    events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [*events, {"type": "content_block_stop", "index": index}] if done else events


def _text(index: int, *pieces: str, done: bool = True) -> list[Json]:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return _block(index, {"type": "text", "text": ""}, *deltas, done=done)


def _tool(index: int, id: str, name: str, *pieces: str) -> list[Json]:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)]
    return _block(index, {"type": "tool_use", "id": id, "name": name, "input": {}}, *deltas)


def _thinking(index: int, signature: str, *pieces: str) -> list[Json]:
    deltas: list[Json] = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    deltas.append({"type": "signature_delta", "signature": signature})
    return _block(index, {"type": "thinking", "thinking": "", "signature": ""}, *deltas)


def _error(status: int, type: str, message: str, **headers: str) -> Answer:
    body = {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_011Fake"}
    return Answer(status=status, error=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


_BEGUN = [*_begin(), *_text(0, "Hel", done=False)]

ANSWERS: Mapping[str, Answer] = {
    "text": Answer([*_begin(), *_text(0, "Hel", "lo"), *_end("end_turn")]),
    "long": Answer([*_begin(), *_text(0, "Hel"), *_end("max_tokens")]),
    "tools": Answer(
        [
            *_begin(),
            *_text(0, "Let me look."),
            *_tool(1, "toolu_01A", "get_weather", '{"city": ', '"Paris"}'),
            *_tool(2, "toolu_01B", "get_time", '{"zone": "CET"}'),
            *_end("tool_use"),
        ]
    ),
    "thinking": Answer(
        [
            *_begin(),
            *_thinking(0, "c2lnbmF0dXJl", "Two and two", " make four."),
            *_block(1, {"type": "redacted_thinking", "data": "aGlkZGVu"}),
            *_text(2, "4"),
            *_end("end_turn"),
        ]
    ),
    "search": Answer(
        [
            *_begin(),
            *_tool(0, "srvtoolu_01S", "web_search", '{"query": "Paris"}'),
            *_block(1, {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_01S", "content": []}),
            *_text(2, "It rains."),
            *_end("end_turn"),
        ]
    ),
    "search_and_tool": Answer(
        [
            *_begin(),
            *_tool(0, "srvtoolu_01S", "web_search", '{"query": "Paris"}'),
            *_block(1, {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_01S", "content": []}),
            *_tool(2, "toolu_01A", "get_weather", '{"city": "Paris"}'),
            *_end("tool_use"),
        ]
    ),
    "cut": Answer(_BEGUN),
    "cut_after_tool": Answer([*_begin(), *_tool(0, "toolu_01A", "get_weather", '{"city": ')]),
    "reset": Answer(_BEGUN, ending="reset"),
    "hang": Answer(_BEGUN, ending="hang"),
    "error_midway": Answer(
        [*_BEGUN, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}],
    ),
    "no_reason": Answer([*_BEGUN, {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {}}]),
    "portal": Answer(error="<html>Please accept our terms</html>"),
    "redirect": Answer(status=307, error={}, headers={"location": "/text/v1/messages"}),
    "bad_request": _error(400, "invalid_request_error", "max_tokens: 999999 > 64000, which is the maximum"),
    "spent": _error(400, "invalid_request_error", "You have reached your specified API usage limits."),
    "unauthorized": _error(401, "authentication_error", f"invalid x-api-key: {KEY}"),
    "missing": _error(404, "not_found_error", "model: claude-0"),
    "rate_limit": _error(429, "rate_limit_error", "Number of request tokens exceeds your limit", retry_after="7"),
    "server_error": _error(500, "api_error", "Internal server error"),
    "overloaded": _error(529, "overloaded_error", "Overloaded", retry_after="3"),
}


class FakeAnthropic(FakeVendor):
    """Refuses what Anthropic would refuse: a wrong key, no version, no max_tokens, roles that do not alternate."""

    path = "/v1/messages"
    answers = ANSWERS

    def fault(self, request: Request) -> Answer | None:
        key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if key != KEY:
            return _error(401, "authentication_error", f"invalid x-api-key: {key}")
        problem = _problem(request)
        return _error(400, "invalid_request_error", problem) if problem else None

    def frame(self, event: Json) -> bytes:
        return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _problem(request: Request) -> str | None:
    body = request.body
    roles = [message["role"] for message in body.get("messages", [])]
    if request.headers.get("anthropic-version") not in VERSIONS:
        return "anthropic-version: header is required"
    if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 1:
        return "max_tokens: Field required"
    if body.get("stream") is not True:
        return "this fake only streams"
    if not roles or any(role != ("user", "assistant")[turn % 2] for turn, role in enumerate(roles)):
        return f"messages: roles must alternate between user and assistant, got {roles}"
    return None
