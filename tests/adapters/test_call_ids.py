"""Ids of tool calls, for a vendor other than the one that gave them."""

from typing import Any

import pytest

from proxy.adapters.call_ids import unsigned

SIGNED = "call_1__thought__CiQB/+=="


def call(id: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_a_signature_goes_from_a_call_and_its_result() -> None:
    said: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [call(SIGNED), call("call_2")]},
        {"role": "tool", "tool_call_id": SIGNED, "content": "x"},
    ]
    assert unsigned(said) == [
        {"role": "assistant", "content": None, "tool_calls": [call("call_1"), call("call_2")]},
        {"role": "tool", "tool_call_id": "call_1", "content": "x"},
    ]
    assert said[1]["tool_call_id"] == SIGNED, "the next provider may be Gemini again"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": SIGNED},
        {"role": "tool", "tool_call_id": 7},
        {"role": "assistant", "tool_calls": "x"},
        {"role": "assistant", "tool_calls": [7, {}, call(None)]},
        "Hi",
    ],
)
def test_all_else_stays_as_it_is(message: Any) -> None:
    assert unsigned([message]) == [message]
