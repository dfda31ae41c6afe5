"""OpenAI's Responses API as Azure serves it, for the models whose tools need it."""

import json
from collections.abc import Mapping

from tests.vendors.fake import KEY, Answer, FakeVendor, Json, Request

_RESPONSE: Json = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "in_progress",
    "model": "gpt-5.4",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
_CALL: Json = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "get_weather", "arguments": ""}
_WHOLE = _CALL | {"arguments": '{"city": "Paris"}', "status": "completed"}
_USAGE: Json = {"input_tokens": 12, "output_tokens": 2, "total_tokens": 14}


def _event(kind: str, **more: Json | str | int) -> Json:
    return {"type": f"response.{kind}", **more}


_BEGUN = [
    _event("created", response=_RESPONSE),
    _event("output_item.added", output_index=0, item=_CALL | {"status": "in_progress"}),
    _event("function_call_arguments.delta", item_id="fc_1", output_index=0, delta='{"city": '),
]

ANSWERS: Mapping[str, Answer] = {
    "tools": Answer(
        [
            *_BEGUN,
            _event("function_call_arguments.delta", item_id="fc_1", output_index=0, delta='"Paris"}'),
            _event("output_item.done", output_index=0, item=_WHOLE),
            _event("completed", response=_RESPONSE | {"status": "completed", "output": [_WHOLE], "usage": _USAGE}),
        ]
    ),
    "hang": Answer(_BEGUN, ending="hang"),
}


class FakeResponses(FakeVendor):
    """Refuses a wrong key."""

    path = "/openai/v1/responses"
    answers = ANSWERS

    def fault(self, request: Request) -> Answer | None:
        known = request.headers.get("api-key") == KEY or request.headers.get("authorization") == f"Bearer {KEY}"
        return None if known else Answer(status=401, error={"error": {"code": "401", "message": "Access denied"}})

    def frame(self, event: Json) -> bytes:
        return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
