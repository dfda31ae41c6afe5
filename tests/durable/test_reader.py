"""A reader gets all of a log, in order, from wherever it left off; or is told why it cannot."""

import asyncio

import pytest

from proxy.durable.feed import MOST_SIZE, Feed
from proxy.durable.feeds import Feeds
from proxy.durable.reader import Reader
from proxy.errors import Kind, NoAnswer, ProviderError, RequestError, Stopped, WeirError
from proxy.events import Error, Finish, Start, TextDelta
from proxy.position import Position
from proxy.record import NOWHERE
from proxy.testing import Played, says, scripted, text_of
from tests.durable.replicas import Fleet, Reading, all_of, log_holds, told
from tests.journeys import HANG, idle
from tests.process import until
from tests.state.replicas import Replica, about
from tests.state.stores import Stores

pytestmark = pytest.mark.anyio

A, B = TextDelta(content="a"), TextDelta(content="b")
LONG = TextDelta(content="x" * 20_000)  # few of them are in one entry of a log


async def test_what_is_said_is_read(fleet: Fleet) -> None:
    one = await fleet(scripted("a", says("a", "b"), models=["m"]))
    reading = Reading(await one.ask())
    assert text_of(await reading.all()) == "ab"
    assert told(reading.events) == ["start", "text-delta", "text-delta", "finish-step", "finish"]
    assert [event.seq for event in reading.events] == [1, 2, 3, 4, 5]
    assert [place[:2] for place in reading.places] == [(1, seq) for seq in (1, 2, 3, 4, 5)]
    assert len({place.nonce for place in reading.places}) == 1
    assert reading.reader.headers()["x-weir-provider"] == "a"


async def test_the_same_is_read_again_on_any_replica_once_it_has_ended(fleet: Fleet) -> None:
    one, other = await fleet(scripted("a", says("a", "b"), models=["m"])), await fleet()
    first = await one.ask()
    events = await all_of(first)
    for replica in (one, other):
        again = Reading(await replica.read(first.id))
        assert await again.all() == events, f"{replica.name} tells it otherwise"
        assert again.reader.headers()["x-weir-provider"] == "a"


async def test_several_read_it_while_it_runs_and_the_provider_is_asked_once(fleet: Fleet) -> None:
    gate, adapter = asyncio.Event(), scripted("a", models=["m"])
    adapter.scripts = [[Start(), A, gate, B, Finish()]]
    one, other = await fleet(adapter), await fleet()
    first = await one.ask()
    readers = [first, *[await replica.read(first.id) for replica in (one, other, other, other)]]
    readings = [Reading(reader) for reader in readers]
    tasks = [asyncio.create_task(reading.all()) for reading in readings]
    await until(lambda: all(len(reading.events) == 2 for reading in readings), "two events for everyone")
    gate.set()
    async with asyncio.timeout(10):
        got = await asyncio.gather(*tasks)
    assert [text_of(events) for events in got] == ["ab"] * 5
    assert len(adapter.calls) == 1, "a reader more was a call more"


async def test_those_who_come_at_the_same_moment_are_all_told_what_follows(fleet: Fleet) -> None:
    """Each looks into the log before it follows the stream, and none may push another from its place."""
    gate, adapter = asyncio.Event(), scripted("a", models=["m"])
    adapter.scripts = [[Start(), A, gate, B, Finish()]]
    one, other = await fleet(adapter), await fleet()
    first = await one.ask()
    await log_holds(one, first.id, 2)
    tasks = [asyncio.create_task(all_of(await other.read(first.id))) for _ in range(8)]
    await idle()
    gate.set()
    async with asyncio.timeout(10):
        assert {text_of(events) for events in await asyncio.gather(*tasks)} == {"ab"}


async def test_who_has_fallen_behind_reads_the_log(fleet: Fleet) -> None:
    """Nothing is kept for him: the feed has forgotten where he is."""
    step = asyncio.Event()
    one = await fleet(scripted("a", [Start(), A, step, *[LONG] * 40, *says()[1:]], models=["m"]))
    first = await one.ask()
    slow = await one.read(first.id)
    async with slow.events() as events:
        assert (await anext(events)).seq == 1
        feed = slow._feed
        step.set()
        await all_of(first)
        assert feed is not None
        kept = sum(len(event.content) for entry in feed._entries for event in entry.events if type(event) is TextDelta)
        assert kept <= MOST_SIZE + len(LONG.content), "what a slow reader has not read is kept in memory"
        assert feed.since(slow._entry) is None, "the reader is not slow enough to show anything"
        rest = [event async for event in events]
    assert [event.seq for event in rest] == list(range(2, 45)), "what a slow reader gets has a gap"


async def test_a_position_is_checked_against_the_log(fleet: Fleet) -> None:
    one = await fleet(scripted("a", says("a", "b"), models=["m"]))
    whole = Reading(await one.ask())
    await whole.all()
    for place in whole.places:
        got = Reading(await one.read(whole.reader.id, place))
        assert len(await got.all()) == 5, "an encoder needs what comes before, too"
    second = whole.places[1]
    for wrong in (second._replace(nonce="00000000"), second._replace(epoch=2), Position(1, 99, second.nonce)):
        with pytest.raises(WeirError) as caught:
            await all_of(await one.read(whole.reader.id, wrong))
        assert (caught.value.status, caught.value.code) == (409, "log_regressed"), f"{wrong} was taken"


async def test_a_position_that_is_still_to_come_is_refused_at_once(fleet: Fleet) -> None:
    one = await fleet(scripted("a", [Start(), A, HANG], models=["m"]))
    first = await one.ask()
    await log_holds(one, first.id, 2)
    with pytest.raises(WeirError) as caught:
        await all_of(await one.read(first.id, Position(1, 3, first.about.owner)))
    assert caught.value.status == 409


async def test_who_has_seen_more_elsewhere_than_is_known_here_is_believed(stores: Stores) -> None:
    """Redis has said to another replica what it has not yet acknowledged to the producer, or the producer slept."""
    a = Replica(stores, "a")
    await a.begin("s")
    feeds, feed = Feeds(a.logs), Feed(NOWHERE)
    feeds.begin("s", feed)
    (opening,) = await a.whole("s")
    feed.push(opening)
    await a.say("s", 1, 2, A, B)
    reader = Reader("s", about(), a.logs, feeds, "r", Position(1, 2, "a1"))
    reading = Reading(reader)
    task = asyncio.create_task(reading.all())
    await until(lambda: len(reading.events) == 2 or task.done(), "what is in the log")
    await a.say("s", 1, 3, Finish())
    for entry in (await a.whole("s"))[1:]:
        feed.push(entry)
    assert told(await task) == ["text-delta", "text-delta", "finish"]


async def test_a_log_with_a_gap_is_not_read_on(fleet: Fleet) -> None:
    gate = asyncio.Event()
    one, other = await fleet(scripted("a", [Start(), A, gate, B, Finish()], models=["m"])), await fleet()
    first = await one.ask()
    await log_holds(one, first.id, 2)
    gate.set()
    await all_of(first)
    log = other.streams.logs.log(first.id)
    _, batch, *_ = await other.store.client.xrange(log)
    await other.store.client.xdel(log, batch[0])
    with pytest.raises(WeirError) as caught:
        await all_of(await other.read(first.id))
    assert (caught.value.status, caught.value.code) == (409, "log_regressed")


async def test_a_log_that_another_version_wrote_is_told_from_a_failure(fleet: Fleet) -> None:
    one = await fleet(scripted("a", says("a"), models=["m"]))
    first = await one.ask()
    await all_of(first)
    await one.store.client.xadd(one.streams.logs.log(first.id), {"a": '[{"type":"data-new"}]'}, id="2-9")
    with pytest.raises(WeirError, match="another version") as caught:
        await all_of(await one.read(first.id))
    assert caught.value.code == "log_unreadable"


async def test_a_log_that_vanished_under_a_slow_reader_is_told(fleet: Fleet) -> None:
    """The feed has more than the log, so it would be looked for again and again."""
    step = asyncio.Event()
    script: Played = [Start(), A, step, *[LONG] * 40, HANG]
    one = await fleet(scripted("a", script, models=["m"]))
    slow = await one.ask()
    async with slow.events() as events:
        assert (await anext(events)).seq == 1
        step.set()
        await log_holds(one, slow.id, 42)
        await until(lambda: slow._feed is not None and slow._feed.since(slow._entry) is None, "a reader far behind")
        await one.store.client.delete(one.streams.logs.log(slow.id))
        async with asyncio.timeout(5):
            with pytest.raises(WeirError) as caught:
                async for _ in events:
                    pass
    assert caught.value.code == "log_regressed"


async def test_a_reader_that_is_stopped_stops_nobody_else(fleet: Fleet) -> None:
    gate = asyncio.Event()
    one = await fleet(scripted("a", [Start(), A, gate, B, Finish()], models=["m"]))
    first = await one.ask()
    task = asyncio.create_task(all_of(first))
    await log_holds(one, first.id, 2)
    first.stop("the client went away")
    with pytest.raises(Stopped, match="went away"):
        await task
    gate.set()
    assert text_of(await all_of(await one.read(first.id))) == "ab"


async def test_what_kept_a_stream_from_beginning_is_raised(fleet: Fleet) -> None:
    one, other = await fleet(scripted("a", [ProviderError(Kind.AUTH, "no")], models=["m"])), await fleet()
    first = await one.ask()
    with pytest.raises(NoAnswer, match="no"):
        await all_of(first)
    with pytest.raises(WeirError, match="no") as caught:
        await all_of(await other.read(first.id))
    assert caught.value.status == 502, "read later, it has another status"


async def test_who_has_had_a_part_of_an_event_has_not_had_it(fleet: Fleet) -> None:
    """Where it is read as events, it is given whole; as by `Numbered`, where it is read in another format."""
    one = await fleet(scripted("a", says("a"), models=["m"]))
    reading = Reading(await one.ask())
    events = await reading.all()
    place = reading.places[1]
    for after, had in ((place, [True, True, False, False]), (place._replace(part=1), [True, False, False, False])):
        reader = await one.read(reading.reader.id, after)
        assert [reader.has_had(event) for event in events] == had, after


async def test_a_stream_is_its_owners_and_has_its_time(fleet: Fleet) -> None:
    one = await fleet(scripted("a", says("a"), models=["m"]))
    first = await one.ask()
    await all_of(first)
    for stream_id, owner in ((first.id, "you"), (first.id, ""), ("replica1-none", "me")):
        with pytest.raises(RequestError) as caught:
            await one.read(stream_id, owner=owner)
        assert (caught.value.status, caught.value.code) == (404, "stream_not_found")
    await one.store.client.delete(one.streams.logs.log(first.id))
    with pytest.raises(RequestError) as caught:
        await one.read(first.id)
    assert (caught.value.status, caught.value.code) == (410, "stream_gone")


async def test_an_error_in_mid_stream_is_an_event(fleet: Fleet) -> None:
    one = await fleet(scripted("a", [Start(), A, ProviderError(Kind.CUT, "cut")], models=["m"]))
    events = await all_of(await one.ask())
    assert told(events) == ["start", "text-delta", "data-recovery", "error"]
    assert isinstance(events[-1], Error)
