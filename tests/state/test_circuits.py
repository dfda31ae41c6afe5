"""Verdicts travel, the newest wins; a probe has one owner in the whole fleet."""

import asyncio

import pytest

from proxy.circuit import Verdict
from proxy.state.circuits import PROBE_LEASE, CircuitStore
from proxy.state.providers import ProviderStore
from proxy.state.store import Lost
from tests.redis_server import RedisServer, free_port
from tests.state.stores import Stores, stores_at

pytestmark = pytest.mark.anyio

OPEN = Verdict(generation=1, open=True, until=50.0, ejections=1, since=20.0)


async def test_pushed_by_one_and_loaded_by_another(stores: Stores) -> None:
    one, two = CircuitStore(stores(), "one"), CircuitStore(stores(), "two")
    assert await two.load() == {}
    await one.push({"a": OPEN})
    assert await two.load() == {"a": OPEN}


async def test_the_newer_verdict_stays(stores: Stores) -> None:
    one, two = CircuitStore(stores(), "one"), CircuitStore(stores(), "two")
    closed = Verdict(generation=2)
    await one.push({"a": closed, "b": OPEN})
    version = await ProviderStore(stores()).version()
    await two.push({"a": OPEN})
    assert await two.load() == {"a": closed, "b": OPEN}
    assert await ProviderStore(stores()).version() == version, "nothing new, so nobody needs to look"
    await two.push({"a": OPEN, "c": OPEN})
    assert await two.load() == {"a": closed, "b": OPEN, "c": OPEN}


async def test_of_two_who_push_at_once_none_is_lost(stores: Stores) -> None:
    circuits = [CircuitStore(stores(), str(number)) for number in range(4)]

    async def push(number: int) -> None:
        verdicts = {"all": Verdict(generation=number), str(number): OPEN}
        while True:
            try:
                return await circuits[number].push(verdicts)
            except Lost:
                pass  # as the next beat would

    for _ in range(10):
        await asyncio.gather(*map(push, range(4)))
    found = await circuits[0].load()
    assert found.keys() == {"all", "0", "1", "2", "3"}
    assert found["all"].generation == 3


async def test_a_verdict_that_cannot_be_read_hurts_nobody(stores: Stores) -> None:
    store = stores()
    circuits = CircuitStore(store, "me")
    await circuits.push({"a": OPEN})
    await store.client.hset(store.key("circuits"), mapping={"b": "{", "c": '{"generation": "one"}'})
    assert await circuits.load() == {"a": OPEN}
    await circuits.push({"b": OPEN})
    assert await circuits.load() == {"a": OPEN, "b": OPEN}


async def test_one_probe_in_the_whole_fleet(stores: Stores) -> None:
    circuits = [CircuitStore(stores(), str(number)) for number in range(5)]
    for generation in range(20):
        claims = await asyncio.gather(*(each.claim("a", generation) for each in circuits))
        assert claims.count(True) == 1
    store = stores()
    assert 0 < await store.client.ttl(store.key("probe", "a", 0)) <= PROBE_LEASE


async def test_a_probe_is_of_one_provider_and_one_opening(stores: Stores) -> None:
    one, two = CircuitStore(stores(), "one"), CircuitStore(stores(), "two")
    assert await one.claim("a", 1)
    assert not await two.claim("a", 1)
    assert await two.claim("a", 2)
    assert await two.claim("b", 1)


async def test_a_probe_that_is_given_back_may_be_claimed(stores: Stores) -> None:
    one, two = CircuitStore(stores(), "one"), CircuitStore(stores(), "two")
    assert await one.claim("a", 1)
    await one.release("a", 1)
    await one.release("a", 1)
    assert await two.claim("a", 1)


async def test_nobody_gives_back_what_another_holds(stores: Stores) -> None:
    one, two, three = (CircuitStore(stores(), name) for name in ("one", "two", "three"))
    assert await one.claim("a", 1)
    await two.release("a", 1)
    assert not await three.claim("a", 1)


async def test_releases_and_claims_at_once_leave_one_owner(stores: Stores) -> None:
    one, two, three = (CircuitStore(stores(), name) for name in ("one", "two", "three"))
    for generation in range(20):
        assert await one.claim("a", generation)
        claimed = await asyncio.gather(
            one.release("a", generation), two.claim("a", generation), three.claim("a", generation)
        )
        assert claimed.count(True) <= 1
        assert [await each.claim("a", generation) for each in (two, three)].count(True) <= 1 - claimed.count(True)


async def test_without_redis_every_replica_decides_for_itself() -> None:
    async with stores_at(f"redis://127.0.0.1:{free_port()}") as stores:
        circuits = CircuitStore(stores(), "me")
        assert await circuits.claim("a", 1)
        assert await circuits.claim("a", 1)
        await circuits.release("a", 1)


async def test_a_claim_made_while_redis_was_away_is_not_given_back_over_anothers(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        store = stores()
        one, two = CircuitStore(store, "one"), CircuitStore(stores(), "two")
        assert await two.claim("a", 1)
        store.away = True
        assert await one.claim("a", 1)
        store.back()
        await one.release("a", 1)
        assert not await CircuitStore(stores(), "three").claim("a", 1)
