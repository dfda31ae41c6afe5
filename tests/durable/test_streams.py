"""The durable streams of a replica: begun, read by many, looked at, and left to others when it goes."""

import asyncio
from typing import Any

import pytest

from proxy.errors import RequestError, Stopped, StoreAway, WeirError
from proxy.events import Abort, Finish, Start, TextDelta
from proxy.position import read_position
from proxy.state.sessions import SessionRef
from proxy.state.stream_log import Once
from proxy.testing import says, scripted, text_of
from tests.durable.replicas import OWNER, Fleet, Reading, all_of, log_holds, told
from tests.journeys import HANG
from tests.process import until
from tests.redis_server import RedisServer
from tests.state.stores import Stores, stores_at

pytestmark = pytest.mark.anyio

A, B = TextDelta(content="a"), TextDelta(content="b")
ONCE = Once("key", "digest")


async def test_a_request_that_is_wrong_makes_no_stream(fleet: Fleet) -> None:
    one = await fleet()
    with pytest.raises(RequestError, match="not served"):
        await one.ask(once=ONCE)
    assert not [key async for key in one.store.client.scan_iter(one.store.key("*")) if ":log" in key or ":once" in key]


async def test_what_is_being_answered_in_a_session_is_found(fleet: Fleet) -> None:
    gate, session = asyncio.Event(), SessionRef.of(OWNER, "s1")
    one = await fleet(scripted("a", [Start(), A, gate, B, Finish()], models=["m"]))
    other = await fleet()

    async def found() -> Any:
        return await other.streams.answering(session, OWNER, "r2")

    assert await found() is None, "nothing was asked yet"
    first = await one.ask(weir={"session_id": "s1"})
    reader = await found()
    assert reader.id == first.id
    gate.set()
    assert text_of(await all_of(reader)) == "ab"
    assert await found() is None, "it has ended"


async def test_its_status_tells_how_far_it_is(fleet: Fleet) -> None:
    gate = asyncio.Event()
    one, other = await fleet(scripted("a", [Start(), A, gate, B, Finish()], models=["m"])), await fleet()
    first = await one.ask()
    await log_holds(one, first.id, 2)
    status = await other.streams.status(first.id, OWNER)
    assert (status["state"], status["end"], status["seq"], status["recoveries"]) == ("running", None, 2, 0)
    reading = Reading(await other.read(first.id, read_position(status["position"])))
    gate.set()
    assert text_of(await reading.all()) == "ab"
    status = await other.streams.status(first.id, OWNER)
    assert (status["state"], status["end"], status["seq"]) == ("ended", "finish", 4)
    assert status["position"] == str(reading.places[-1])
    with pytest.raises(RequestError) as caught:
        await other.streams.status(first.id, "you")
    assert caught.value.status == 404


async def test_its_producer_is_known_while_it_has_one(fleet: Fleet) -> None:
    one = await fleet(scripted("a", [Start(), A, HANG], models=["m"]))
    first = await one.ask()
    await log_holds(one, first.id, 2)
    other = await fleet()
    other.streams.leave(0)  # it takes nothing over
    assert await other.streams.producer(first.id, OWNER) == one.name
    assert await other.streams.producer(first.id, "you") is None
    assert await other.streams.producer("replica1-none", OWNER) is None
    await one.die()
    with pytest.raises(WeirError) as caught:
        await other.streams.producer(first.id, OWNER)
    assert (caught.value.status, caught.value.code) == (503, "producer_gone")


async def test_that_it_has_ended_is_known_everywhere(fleet: Fleet) -> None:
    one, other = await fleet(scripted("a", says("a"), models=["m"])), await fleet()
    first = await one.ask()
    await all_of(first)
    with pytest.raises(WeirError) as caught:
        await other.streams.producer(first.id, OWNER)
    assert (caught.value.status, caught.value.code) == (409, "ended")


async def test_who_goes_leaves_its_streams_to_others_at_once(shared_redis: RedisServer) -> None:
    async with stores_at(shared_redis.url) as stores, Fleet(stores) as fleet:
        one = await fleet(scripted("a", [Start(), A, HANG], models=["m"]))
        other = await fleet(scripted("a", [B, Finish()], models=["m"], prefill=True))
        first = await one.ask(weir={"recovery": "continue"})
        here, there = Reading(first), Reading(await other.read(first.id))
        tasks = [asyncio.create_task(each.all()) for each in (here, there)]
        await until(lambda: len(here.events) == len(there.events) == 2, "what was said")
        one.streams.release()
        with pytest.raises(Stopped, match="read it from another replica"):
            await tasks[0]
        async with asyncio.timeout(4):  # less than a lease
            assert told(await tasks[1])[2:] == ["data-recovery", "text-delta", "finish"]
        with pytest.raises(Stopped):
            await one.ask()


async def test_who_is_slow_is_told_too_that_its_replica_goes(shared_redis: RedisServer) -> None:
    async with stores_at(shared_redis.url) as stores, Fleet(stores) as fleet:
        one = await fleet(scripted("a", [Start(), A, HANG], models=["m"]))
        first = await one.ask()
        async with first.events() as events:
            await anext(events)
            await log_holds(one, first.id, 2)
            one.streams.release()
            await until(lambda: not [*one.streams._produced], "its streams to be left to others")
            with pytest.raises(Stopped, match="read it from another replica"):
                async with asyncio.timeout(5):
                    assert [event async for event in events] == [A]


async def test_with_the_only_replica_its_streams_end_marked(embedded: Stores) -> None:
    async with Fleet(embedded) as fleet:
        one = await fleet(scripted("a", [Start(), A, HANG], models=["m"]))
        reading = Reading(await one.ask())
        task = asyncio.create_task(reading.all())
        await until(lambda: len(reading.events) == 2, "what was said")
        one.streams.release()
        end = (await task)[-1]
    assert isinstance(end, Abort)
    assert end.reason == "Weir is shutting down"


async def test_without_redis_nothing_begins_and_nothing_is_asked(fleet: Fleet) -> None:
    adapter = scripted("a", says("a"), models=["m"])
    one = await fleet(adapter)
    one.store.away = True
    with pytest.raises(StoreAway) as caught:
        await one.ask()
    assert caught.value.status == 503
    assert not adapter.calls


async def test_one_that_is_on_its_way_into_redis_when_its_replica_goes_is_left_to_others(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stores_at(shared_redis.url) as stores, Fleet(stores) as fleet:
        adapter = scripted("a", says("never"), models=["m"])
        one = await fleet(adapter)
        begin = one.streams.logs.begin

        async def slow(*args: Any, **kwargs: Any) -> str:
            begun = await begin(*args, **kwargs)
            one.streams.release()
            return begun

        monkeypatch.setattr(one.streams.logs, "begin", slow)
        first = await one.ask()
        with pytest.raises(Stopped):
            await all_of(first)
        await one.streams.close()
        assert not adapter.calls, "a provider was asked for an answer that nobody will get"
        assert not await one.store.client.exists(one.streams.logs.lease(one.name)), "others wait for its lease"
