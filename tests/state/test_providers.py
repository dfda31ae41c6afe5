"""Registrations: saved by one replica, loaded by another, and never lost behind anyone's back."""

import asyncio

import pytest

from proxy.circuit import Verdict
from proxy.state.circuits import CircuitStore
from proxy.state.providers import ProviderStore
from tests.redis_server import RedisServer
from tests.state.stores import Stores, stores_at

pytestmark = pytest.mark.anyio


async def test_a_store_that_never_held_anything(stores: Stores) -> None:
    providers = ProviderStore(stores())
    assert await providers.version() is None
    assert (await providers.load()).configs == {}


async def test_saved_by_one_and_loaded_by_another(stores: Stores) -> None:
    one, two = ProviderStore(stores()), ProviderStore(stores())
    await one.save("a", '{"x": 1}')
    await two.save("b", '{"x": "é"}')
    assert (await one.load()).configs == (await two.load()).configs == {"a": '{"x": 1}', "b": '{"x": "é"}'}
    await two.save("a", '{"x": 2}')
    await one.delete("b")
    assert (await one.load()).configs == (await two.load()).configs == {"a": '{"x": 2}'}


async def test_every_change_is_a_version_never_seen_before(stores: Stores) -> None:
    providers, circuits = ProviderStore(stores()), CircuitStore(stores(), "me")
    seen = [await providers.version()]
    for change in (
        providers.restore({}),
        providers.save("a", "{}"),
        providers.save("a", "{}"),
        providers.delete("a"),
        providers.delete("a"),
        providers.restore({}),
        circuits.push({"a": Verdict(1, True)}),
    ):
        await change
        assert await providers.version() not in seen
        seen.append(await providers.version())


async def test_a_deleted_provider_leaves_no_verdict_to_the_next_of_its_name(stores: Stores) -> None:
    providers, circuits = ProviderStore(stores()), CircuitStore(stores(), "me")
    await providers.save("a", "{}")
    await circuits.push({"a": Verdict(3, True), "b": Verdict(1, True)})
    await providers.delete("a")
    assert (await circuits.load()).keys() == {"b"}


async def test_restoring_overwrites_nothing(stores: Stores) -> None:
    one, two = ProviderStore(stores()), ProviderStore(stores())
    await asyncio.gather(one.restore({"a": "old", "b": "old"}), two.restore({"a": "old", "b": "old"}))
    await one.save("a", "new")
    await two.restore({"a": "old", "b": "old", "c": "old"})
    assert (await one.load()).configs == {"a": "new", "b": "old", "c": "old"}


async def test_registrations_outlive_a_crash_of_redis(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        await ProviderStore(stores()).save("a", "{}")
        redis_server.kill()
        redis_server.start()
        assert (await ProviderStore(stores()).load()).configs == {"a": "{}"}
        redis_server.kill()
        redis_server.start(empty=True)
        assert await ProviderStore(stores()).version() is None


async def test_only_who_tells_all_that_was_known_begins_a_version(stores: Stores) -> None:
    """Or nobody would notice that the rest has been lost."""
    providers, circuits = ProviderStore(stores()), CircuitStore(stores(), "me")
    await providers.save("a", "{}")
    await circuits.push({"a": Verdict(1, True)})
    await providers.delete("b")
    assert await providers.version() is None
    await providers.restore({"b": "{}"})
    assert await providers.version() is not None
    assert (await providers.load()).configs == {"a": "{}", "b": "{}"}
