"""One stream through a mode, and what a mode must keep. Broken modes: see test_checks.py."""

import pytest

from proxy.events import Event, Finish, Start, TextDelta
from proxy.modes.buffered import Buffered
from proxy.testing import says, shape, text_of

pytestmark = pytest.mark.anyio


async def test_it_returns_what_the_reader_got() -> None:
    got = await shape(Buffered(), {"a": says("Hel", "lo")})
    assert [type(event).__name__ for event in got] == ["Start", "TextDelta", "FinishStep", "Finish"]
    assert text_of(got) == "Hello"


async def test_a_reader_may_take_its_time() -> None:
    script: list[Event | float] = [Start(), TextDelta(content="a"), 0.3, TextDelta(content="b"), 0.3, Finish()]
    quick = await shape(Buffered(), {"a": script})
    slow = await shape(Buffered(), {"a": script}, pause=1.0)
    assert [len(text_of([event])) for event in quick] == [0, 1, 1, 0]
    assert [len(text_of([event])) for event in slow] == [0, 2, 0], "what came while the reader was away came apart"
