"""The scripted merge: what it plays, and how its time passes."""

import asyncio

import pytest

from proxy.events import Error, Finish, Quiet, SourceEnd, TextDelta
from proxy.testing import ScriptedClock, merged, play, says, text_of
from tests.journeys import idle

pytestmark = pytest.mark.anyio


async def test_a_source_plays_its_script() -> None:
    said = says("a", "b")
    async with merged(said) as merge:
        got = await play(merge)
    assert [*map(id, got)] == [*map(id, said)], "the events of a script are not copied: a test knows them again"


async def test_sources_have_names() -> None:
    async with merged([Finish()], [Finish()], gpt=[Finish()]) as merge:
        assert [event.source for event in await play(merge) if isinstance(event, SourceEnd)] == ["a", "b", "gpt"]


async def test_an_event_is_waited_for_and_an_exception_raised(caplog: pytest.LogCaptureFixture) -> None:
    gate = asyncio.Event()
    async with merged([TextDelta(content="a"), gate, ValueError("x")]) as merge:
        assert text_of([await anext(merge)]) == "a"
        await idle()
        assert merge.starved or not merge.ready(), "the script went on"
        gate.set()
        assert isinstance(await anext(merge), Error)
    assert "source a failed" in caplog.text


async def test_time_passes_when_nobody_has_anything_else_to_do() -> None:
    async with merged([0.5, TextDelta(content="a"), 100.0, Finish()], [0.7, TextDelta(content="b"), Finish()]) as merge:
        times = []
        async for _ in merge:
            times.append(merge.time())
            for _ in range(5):
                await asyncio.sleep(0)  # something to do
    assert times == [0.5, 0.7, 0.7, 100.5, 100.5]


async def test_alarms_ring_in_order_and_at_their_time() -> None:
    clock, rang = ScriptedClock(), list[tuple[float, str]]()
    for when, name in [(2.0, "two"), (1.0, "one"), (2.0, "two again"), (3.0, "never")]:
        alarm = clock.call_at(when, lambda name=name: rang.append((clock.time(), name)))  # type: ignore[misc]
    alarm.cancel()
    await clock.sleep(2.5)
    assert rang == [(1.0, "one"), (2.0, "two"), (2.0, "two again")]
    await clock.sleep(1)
    assert clock.time() == 3.5
    assert len(rang) == 3
    await clock.stop()


async def test_a_mode_that_waits_for_the_clock_need_not_be_waited_for() -> None:
    async with merged([Finish()]) as merge:
        merge.wake_at(3600)
        assert isinstance(await anext(merge), Finish)
        await merge.clock.sleep(7200)
        assert merge.time() == 7200


async def test_time_that_nobody_waits_for_is_left_behind() -> None:
    async with merged([3600.0, Finish()]) as merge:
        merge.wake_at(7200)
        assert isinstance(await anext(merge), Finish)
    async with merged([3600.0, Finish()]) as merge:
        merge.wake_at(60)
        assert isinstance(await anext(merge), Quiet)
