"""The embedded store stays within its budget, and forgets only what is finished."""

from typing import Any

import pytest

from proxy.state.embedded import sweep
from proxy.state.stats import StatsStore
from proxy.state.store import Store
from tests.state.stores import Stores

pytestmark = pytest.mark.anyio

PLENTY = 1 << 30


async def sorts(store: Store) -> dict[str, Any]:
    """One key of each type, and what it holds."""
    client = store.client
    await client.set("string", "x" * 5000)
    await client.hset("hash", mapping={str(n): "x" for n in range(20)})
    await client.xadd("stream", {"x": "y"})
    await client.rpush("list", *range(20))
    await client.sadd("set", *range(20))
    await client.zadd("zset", {str(n): n for n in range(20)})
    return {key: await client.type(key) for key in await client.keys("*")}


@pytest.fixture
def store(embedded: Stores) -> Store:
    return embedded()


async def test_what_has_no_end_is_never_dropped(store: Store) -> None:
    await sorts(store)
    left = await sweep(store, budget=0)
    assert len(await store.client.keys("*")) == 6
    assert left > 6 * 500 + 5000


async def test_what_ends_anyway_goes_first_and_the_soonest_of_it(store: Store) -> None:
    for number in (3, 1, 4, 2):
        await store.client.set(f"in-{number}-hours", "x" * 1000, ex=number * 3600)
    await store.client.set("for ever", "x" * 1000)
    everything = await sweep(store, PLENTY)
    left = await sweep(store, budget=everything - 2000)
    assert sorted(await store.client.keys("*")) == ["for ever", "in-3-hours", "in-4-hours"]
    assert left <= everything - 2000
    await sweep(store, budget=0)
    assert await store.client.keys("*") == ["for ever"]


async def test_all_types_may_end(store: Store) -> None:
    for key in await sorts(store):
        await store.client.expire(key, 100)
    assert await sweep(store, budget=0) == 0
    assert await store.client.keys("*") == []


async def test_within_the_budget_nothing_goes(store: Store) -> None:
    await store.client.set("x", "1", ex=100)
    assert await sweep(store, PLENTY) > 0
    assert await store.client.exists("x")


async def test_expired_keys_are_freed(store: Store) -> None:
    await store.client.set("alive", "1", ex=100)
    await store.client.set("expired", "x" * 1000, ex=100)
    kept = store.client.connection_pool.connection_kwargs["server"].dbs[0]._dict
    kept[b"expired"].expireat = 1.0
    assert len(kept) == 2, "fakeredis does not free it by itself; Redis does"
    assert await sweep(store, PLENTY) < 1000
    assert list(kept) == [b"alive"]


async def test_an_empty_store(store: Store) -> None:
    assert await sweep(store, budget=0) == 0


async def test_a_process_outlives_the_sweep_of_its_own_lease(store: Store) -> None:
    process = StatsStore(store)
    await process.flush()
    await sweep(store, budget=0)
    assert not await store.client.exists(store.key("process", process.process))
    await process.renew()
    assert await store.client.exists(store.key("process", process.process))


async def test_a_stream_weighs_what_its_entries_hold(store: Store) -> None:
    """A conversation's entry may be megabytes."""
    for _ in range(3):
        await store.client.xadd("conversation", {"asked": "x" * 100_000})
    assert await sweep(store, PLENTY) > 300_000
