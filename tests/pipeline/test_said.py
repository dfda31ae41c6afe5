"""What is kept of an answer: its text and its tool calls, as a vendor takes them back."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.events import ReasoningDelta, Start, TextDelta, ToolInputDelta
from proxy.pipeline.said import Said


def said(*events: object) -> Said:
    it = Said()
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


def test_nothing_said_is_no_message() -> None:
    assert said(Start()).message() is None


@given(st.lists(st.text(min_size=1), max_size=1000))
def test_long_answers_keep_every_piece(pieces: list[str]) -> None:
    assert said(*(TextDelta(content=piece) for piece in pieces)).text() == "".join(pieces)
