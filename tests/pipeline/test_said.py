"""What is kept of an answer: its text and its tool calls, as a vendor takes them back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.events import ReasoningDelta, Start, TextDelta, ToolInputDelta
from proxy.pipeline.said import Said
from proxy.pipeline.thoughts import Thoughts
from proxy.testing import chunk
from tests.wire.test_openai import read


def said(*events: object, thoughts: bool = False) -> Said:
    it = Said(Thoughts() if thoughts else None)
    for event in events:
        it.add(event)  # type: ignore[arg-type]
    return it


def test_text_is_joined() -> None:
    it = said(Start(), TextDelta(content="Hel"), ReasoningDelta(content="hm"), TextDelta(content="lo"))
    assert it.message() == {"role": "assistant", "content": "Hello"}


def test_only_the_first_choice_counts() -> None:
    assert said(TextDelta(content="a"), TextDelta(content="b", index=1)).text() == "a"


def test_tool_calls_are_put_together() -> None:
    it = said(
        ToolInputDelta(slot=1, id="two", name="b", content="{}"),
        ToolInputDelta(slot=0, id="one", name="a"),
        ToolInputDelta(slot=0, content='{"x"'),
        ToolInputDelta(slot=0, content=": 1}"),
    )
    assert it.message() == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "one", "type": "function", "function": {"name": "a", "arguments": '{"x": 1}'}},
            {"id": "two", "type": "function", "function": {"name": "b", "arguments": "{}"}},
        ],
    }


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
KEPT = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_that_led_to_a_call_are_kept_under_their_name(name: str) -> None:
    events = read(chunk({name: "I ", "role": "assistant"}), chunk({name: "look"}), chunk({"tool_calls": [CALL]}))
    message = {"role": "assistant", "content": None, "tool_calls": [KEPT]}
    assert said(*events, thoughts=True).message("a") == {**message, name: "I look", "said_by": "a"}
    assert said(*events).message("a") == message, "nobody asked for thoughts"
    assert said(*events[:-1], TextDelta(content="so"), thoughts=True).message("a") == {
        "role": "assistant",
        "content": "so",
    }


def test_a_call_is_kept_with_its_signature() -> None:
    """Gemini's, which stands in the piece that begins the call; OpenRouter says all of it in `reasoning_details`."""
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    details = [{"type": "reasoning.encrypted", "data": "g"}]
    events = read(chunk({"content": "", "reasoning_details": details}), chunk({"tool_calls": [CALL | signed]}))
    message = said(*events, thoughts=True).message("a") or {}
    assert message["tool_calls"] == [KEPT | signed]
    assert message["reasoning_details"] == details


def test_what_a_translated_vendor_wants_back_is_kept() -> None:
    block = {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}]}
    thought, signed = ReasoningDelta(content="", extra=block), {"provider_specific_fields": {"thought_signature": "t"}}
    events = [ReasoningDelta(content="hm"), thought, ToolInputDelta(id="c", name="f", content="{}", extra=signed)]
    message = said(*events, thoughts=True).message("a") or {}
    assert message["reasoning_content"] == "hm"
    assert message["thinking_blocks"] == block["thinking_blocks"]
    assert message["tool_calls"] == [KEPT | signed]
    assert thought.extra == block, "an event was changed"


def test_a_call_with_nothing_beside_it_is_a_call_of_openais() -> None:
    assert "said_by" not in (said(*read(chunk({"tool_calls": [CALL]})), thoughts=True).message("a") or {})


def test_nothing_said_is_no_message() -> None:
    assert said(Start()).message() is None


@given(st.lists(st.text(min_size=1), max_size=1000))
def test_long_answers_keep_every_piece(pieces: list[str]) -> None:
    assert said(*(TextDelta(content=piece) for piece in pieces)).text() == "".join(pieces)
