"""Thoughts that led to a tool call, as their vendor wants them back; `test_said.py` shows the message they stand in."""

from proxy.events import ReasoningDelta
from proxy.pipeline.thoughts import Thoughts
from proxy.testing import chunk
from tests.wire.test_openai import read


def test_long_thoughts_are_not_copied_with_each_piece() -> None:
    thoughts = Thoughts()
    for _ in range(300):
        thoughts.add(ReasoningDelta(content="hm "))
    assert thoughts.fields() == {"reasoning_content": "hm " * 300}
    assert all(len(pieces) < 256 for pieces in thoughts._pieces.values())


def test_a_chunk_that_came_as_several_events_is_read_once() -> None:
    thoughts = Thoughts()
    for event in read(chunk({"role": "assistant", "reasoning": "hm", "refusal": "no"})):
        thoughts.add(event)
    assert thoughts.fields() == {"reasoning": "hm"}
