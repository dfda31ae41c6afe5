"""What nobody reads is let go; what others left is taken over, by nobody who cannot keep it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import pytest

from proxy.durable import beat as beats
from proxy.durable.beat import Beat
from proxy.durable.feeds import Feeds
from proxy.durable.produced import Produced
from proxy.errors import StoreAway
from proxy.events import Abort, Start, TextDelta
from proxy.journey import Journey
from proxy.pipeline.stream import Stream
from proxy.state.orphans import Orphanage
from proxy.state.stream_log import LogStore
from proxy.tasks import end
from proxy.testing import scripted
from tests.durable.replicas import Fleet, Reading, log_holds, logged
from tests.journeys import HANG, House, idle, request, skip
from tests.process import until
from tests.state.replicas import about

pytestmark = pytest.mark.anyio

A = TextDelta(content="a")
FOUND = [("dead", f"s{number}") for number in range(1000)]


class Orphans:
    """A thousand of them, each of which takes a while."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.away = False

    async def find(self) -> list[tuple[str, str]]:
        self.log.append("find")
        return FOUND

    async def adopt(self, stream_id: str, producer: str, nonce: str) -> None:
        self.log.append("adopt")
        skip(0.1)

    async def renew(self, running: list[str]) -> None:
        pass

    async def watch(self, stream_ids: list[str]) -> list[str]:
        self.log.append("away" if self.away else "beat")
        if self.away:
            raise StoreAway("readers")
        return []

    async def watched(self, stream_ids: list[str]) -> set[str]:
        return set()


class Watch:
    """A beat, and the orphans it finds."""

    def __init__(self) -> None:
        house = House(scripted("a", [Start(), A, HANG], models=["m"]))
        self.store = house.store
        logs = LogStore(house.store, "here", 60)
        feeds = Feeds(logs)
        self.produced = produced = Produced(house.pipeline, logs, feeds, lambda log: None, 1000)
        self.orphans = Orphans()
        produced.orphanage = cast(Orphanage, self.orphans)
        self.beat = Beat(logs, feeds, produced)


@asynccontextmanager
async def watching() -> AsyncIterator[Watch]:
    watch = Watch()
    task = asyncio.create_task(watch.beat.run())
    try:
        yield watch
    finally:
        await end(task)


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    async with watching() as watch:
        yield watch


async def test_many_orphans_are_taken_over_a_beat_at_a_time(watch: Watch) -> None:
    log = watch.orphans.log
    skip(beats.BEAT)
    await until(lambda: log.count("find") == 2, "the next beat does not come")
    at_once = log[: log.index("beat", 2)].count("adopt")
    assert at_once < beats.BEAT / 0.1 + 2, f"its own lease was not renewed for {at_once / 10:g} s"


async def test_who_is_about_to_go_takes_nothing_over(watch: Watch) -> None:
    watch.beat.leaving = True
    skip(2 * beats.BEAT)
    await until(lambda: "find" in watch.orphans.log, "it does not beat")
    await idle()
    assert "adopt" not in watch.orphans.log, "it took over what it cannot keep"


def beaten(log: list[str], times: int) -> bool:
    return log.count("beat") == times


async def test_leases_that_ran_out_while_redis_was_away_make_no_orphans(watch: Watch) -> None:
    orphans = watch.orphans
    orphans.away = True
    skip(beats.BEAT)
    await until(lambda: "away" in orphans.log, "it does not beat")
    orphans.away = False
    skip(beats.BEAT)
    for number in (1, 2):
        skip(beats.BEAT)
        await until(partial(beaten, orphans.log, number), "it does not beat again")
        assert "find" not in orphans.log, "those who live had no time to say so"
    skip(beats.BEAT)
    await until(lambda: "find" in orphans.log, "it never looks again")


async def test_without_a_reader_it_goes_on_for_so_long_and_is_then_cancelled(fleet: Fleet) -> None:
    one = await fleet(scripted("a", [Start(), A, HANG], models=["m"]))
    first = await one.ask(weir={"detached": 0.1})
    await log_holds(one, first.id, 3)
    end = (await logged(one, first.id))[-1]
    assert isinstance(end, Abort)
    assert end.reason == "nobody has read it for 0.1 s"
    await until(lambda: one.house["a"].meter.active == 0, "the provider's call to end")


async def test_who_has_just_asked_has_time_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little it may go on without a reader: the first one can come only once it has begun."""
    monkeypatch.setattr(beats, "BEAT", 4.0)
    async with watching() as watch:
        watch.beat.leaving = True
        stream = Stream(Journey("r1", "m"), "here")
        await idle()
        skip(2)
        await watch.produced.begin(request("m"), stream, about(detached=0.0), None)
        skip(2)
        await until(lambda: watch.orphans.log == ["beat", "find"], "it does not beat")
        assert stream.journey.stopped is None, "it was cancelled before anybody could read it"
        skip(4)
        await until(lambda: stream.journey.stopped, "it goes on without a reader")
        await watch.produced.close()


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_a_reader_anywhere_keeps_it_going(fleet: Fleet, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = await fleet(scripted("a", [Start(), A, HANG], models=["m"])), await fleet()
    first = await one.ask(weir={"detached": 0.3})
    looks, reading = 0, Reading(await (one if where == "here" else other).read(first.id))
    task = asyncio.create_task(reading.all())
    await until(lambda: len(reading.events) == 2, "a reader who reads")
    began = asyncio.get_running_loop().time()
    beat = one.streams._beat
    let_go = beat._let_the_unread_go

    async def looking() -> None:
        nonlocal looks
        looks += 1
        await let_go()

    monkeypatch.setattr(beat, "_let_the_unread_go", looking)
    await until(lambda: asyncio.get_running_loop().time() - began > 0.6 and looks > 5, "twice the time it has")
    assert len(reading.events) == 2, "it was cancelled under its reader"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await log_holds(one, first.id, 3)


async def test_a_redis_that_may_drop_streams_is_warned_of_once(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def may_forget() -> str:
        return "maxmemory-policy is allkeys-lru"

    monkeypatch.setattr(watch.store, "may_forget", may_forget)
    await until(lambda: watch.orphans.log.count("find") >= 2, "it does not beat")
    told = [record.getMessage() for record in caplog.records if "noeviction" in record.getMessage()]
    assert len(told) == 1
    assert "allkeys-lru" in told[0]
