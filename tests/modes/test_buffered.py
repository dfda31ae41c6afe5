"""Text is held until there is enough of it, or it has waited long enough."""

import asyncio
from collections.abc import AsyncGenerator
from unittest.mock import Mock

import pytest

from proxy.events import Error, Event, Finish, ReasoningDelta, TextDelta
from proxy.merge import Merge
from proxy.modes.buffered import Buffered
from proxy.testing import merged, play, says
from proxy.testing.merge import Script
from proxy.testing.mode_scripts import token

pytestmark = pytest.mark.anyio


async def seen(mode: Buffered, *scripts: Script, pause: float = 0.0) -> list[tuple[float, str, str]]:
    """When which piece of text came, and from whom; of other events, their names."""
    got = []
    async with merged(*scripts) as merge:
        async for event in mode.generate(merge):
            what = event.content if isinstance(event, TextDelta) else type(event).__name__
            got.append((round(merge.time(), 3), event.source, what))
            await merge.clock.sleep(pause) if pause else None
    return got


def text(content: str, index: int = 0) -> TextDelta:
    return TextDelta(content=content, index=index)


def paced(words: str, pause: float) -> list[Event | float]:
    """A word, a pause, a word ... and the end."""
    return [*(step for word in words.split() for step in (text(word), pause)), Finish()]


async def test_text_leaves_when_there_is_enough_of_it() -> None:
    got = await seen(
        Buffered(buffer_size=5), [text("ab"), text("cd"), text("efgh"), text("12345"), text("x"), Finish()]
    )
    assert [what for _, _, what in got] == ["abcdefgh", "12345", "x", "Finish"]


async def test_text_leaves_when_it_has_waited_long_enough() -> None:
    got = await seen(Buffered(flush_interval=0.1), paced("a b c d e f", 0.04))
    assert got == [(0.1, "a", "abc"), (0.22, "a", "def"), (0.24, "a", "Finish")]


async def test_the_wait_begins_with_the_first_character_held() -> None:
    script: list[Event | float] = [
        text("a"),
        0.05,
        text("12345"),
        0.06,
        text("b"),
        0.3,
        Finish(),
    ]  # 12345 lets go of what had waited 0.05 s
    got = await seen(Buffered(buffer_size=5, flush_interval=0.1), script)
    assert got == [(0.05, "a", "a12345"), (0.21, "a", "b"), (0.41, "a", "Finish")]


async def test_nothing_is_said_where_there_is_nothing_to_say() -> None:
    assert await seen(Buffered(), [text(""), 5.0, text(""), Finish()]) == [(5.0, "a", "Finish")]


@pytest.mark.parametrize("other", [ReasoningDelta(content="hm"), Error(message="cut")])
async def test_what_is_not_text_lets_go_at_once(other: Event) -> None:
    got = await seen(Buffered(), [text("a"), text("b"), other])
    assert got[:2] == [(0.0, "a", "ab"), (0.0, "a", type(other).__name__)]


async def test_sources_and_choices_wait_each_for_itself() -> None:
    """A comparison: one source says much, the other little, and has something to think about."""
    quick: list[Event | float] = [text("123"), 0.02, text("x", 1), text("456"), 0.5, Finish()]
    slow: list[Event | float] = [0.01, text("a"), 0.02, ReasoningDelta(content="hm"), text("b"), 0.5, Finish()]
    got = await seen(Buffered(buffer_size=6, flush_interval=0.1), quick, slow)
    assert got == [
        (0.02, "a", "123456"),
        (0.03, "b", "a"),
        (0.03, "b", "ReasoningDelta"),
        (0.12, "a", "x"),
        (0.13, "b", "b"),
        (0.52, "a", "SourceEnd"),
        (0.53, "b", "SourceEnd"),
        (0.53, "", "Finish"),
    ]


async def test_nobody_waits_longer_because_of_somebody_else() -> None:
    script: list[Event | float] = [text("a"), 0.05, text("b", 1), 0.07, text("c", 2), 9.0, Finish()]
    got = await seen(Buffered(flush_interval=0.1), script)
    assert got[:3] == [(0.1, "a", "a"), (0.15, "a", "b"), (0.22, "a", "c")]


async def test_a_slow_reader_gets_what_came_meanwhile_in_one_piece() -> None:
    got = await seen(Buffered(), [text("a"), 0.2, text("b"), 0.1, text("c"), 0.1, text("d"), 9.0, Finish()], pause=1.0)
    assert [what for _, _, what in got] == ["a", "bcd", "Finish"]


async def test_log_probabilities_leave_with_their_text() -> None:
    async with merged([*token("Hel"), *token("lo"), Finish()]) as merge:
        piece, _ = await play(Buffered().generate(merge))
    said = {"logprobs": {"content": [{"token": "Hel", "logprob": -0.5}, {"token": "lo", "logprob": -0.5}]}}
    assert piece == TextDelta(content="Hello", choice=said, source="a")


async def test_a_token_costs_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    armed = Mock(wraps=loop.call_at)
    monkeypatch.setattr(loop, "call_at", armed)
    async with Merge({"a": _played(says(*["word "] * 5000))}) as merge:
        events = Buffered(buffer_size=20, flush_interval=30).generate(merge)
        pieces = [event async for event in events if isinstance(event, TextDelta)]
        assert len(pieces) == 1250
        assert armed.call_count == 1, "a timer for each piece, or even for each token"


async def _played(script: list[Event]) -> AsyncGenerator[Event, None]:
    for event in script:
        yield event
