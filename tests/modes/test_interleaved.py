"""Several sources take turns."""

import asyncio
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.events import ENDS, Event, Finish, TextDelta
from proxy.modes.interleaved import Interleaved
from proxy.testing import merged, play, says
from proxy.testing.merge import Script, ScriptedMerge

pytestmark = pytest.mark.anyio


def words(count: int) -> list[Event]:
    return [*(TextDelta(content=str(number)) for number in range(count)), Finish()]


async def turns(mode: Interleaved, *scripts: Script, wait: float = 0.1) -> str:
    """Who said each event, of sources that all have much to say before the reader comes."""
    async with merged(*scripts) as merge:
        await merge.clock.sleep(wait)
        return "".join(event.source for event in await play(mode.generate(merge)))


async def test_sources_that_are_ready_take_turns() -> None:
    assert await turns(Interleaved(), words(3), words(3), words(3)) == "abc" * 4


async def test_a_turn_may_be_longer() -> None:
    assert await turns(Interleaved(turn=2), words(3), words(6)) == "aabbaabbbbb"


async def test_a_source_that_has_nothing_to_say_is_not_waited_for() -> None:
    async with merged(words(4), [0.2, *words(2)], [9.0, *words(1)]) as merge:
        got = [(round(merge.time(), 1), event.source) async for event in Interleaved(turn=3).generate(merge)]
    assert got == [*[(0.0, "a")] * 5, *[(0.2, "b")] * 3, *[(9.0, "c")] * 2, (9.0, "")]


async def test_who_was_silent_has_no_turns_to_make_up_for() -> None:
    async with merged(words(20), [1.0, *words(20)]) as merge:
        events = Interleaved().generate(merge)
        first = [(await anext(events)).source for _ in range(10)]
        await merge.clock.sleep(2)
        then = [(await anext(events)).source for _ in range(10)]
    assert first == ["a"] * 10
    assert then == ["b", "a"] * 5


async def test_one_source_is_fine() -> None:
    said = says("a", "b")
    async with merged(said) as merge:
        got = await play(Interleaved(turn=5).generate(merge))
    assert [*map(id, got)] == [*map(id, said)]


@given(
    st.lists(st.lists(st.sampled_from(["x", 0.01, 0.05]), max_size=30), min_size=1, max_size=4),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.01, 0.04]),
)
def test_sources_that_are_ready_are_never_more_than_a_turn_apart(
    steps: list[list[str | float]], turn: int, pause: float
) -> None:
    scripts: dict[str, Script] = {
        name: [*(TextDelta(content=it) if isinstance(it, str) else it for it in script), Finish()]
        for name, script in zip("abcd", steps, strict=False)
    }

    async def read() -> list[tuple[str, list[str]]]:
        """Whose each event was, and who else could have had the turn just before it was taken."""
        got: list[tuple[str, list[str]]] = []
        async with ScriptedMerge(scripts) as merge:
            await merge.clock.sleep(0.001)
            events, ready = Interleaved(turn=turn).generate(merge), merge.ready()
            async for event in events:
                if type(event) in ENDS:
                    return got
                got.append((event.source, ready))
                if pause:
                    await merge.clock.sleep(pause)
                ready = merge.ready()
        raise AssertionError("no end")

    got = asyncio.run(read())
    for waiting in scripts:
        passed: dict[str, int] = {}
        for source, run in groupby(got, key=lambda it: it[0]):
            events = [*run]
            if source == waiting or not all(waiting in ready for _, ready in events):
                passed = {}  # it had its turn, or had nothing to say
            else:
                passed[source] = passed.get(source, 0) + -(-len(events) // turn)
                assert passed[source] <= 1, f"{source} had {passed[source]} turns while {waiting} was ready"
