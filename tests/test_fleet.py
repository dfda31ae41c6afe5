"""Replicas keep in step, beat by beat, through everything that can happen to Redis and to their providers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar, cast

import aiohttp
import pytest

from proxy.circuit import FAILURES, Verdict
from proxy.errors import ConfigError, Kind, StoreAway
from proxy.fleet import FORGOTTEN, Fleet
from proxy.pipeline.routing import Router
from proxy.provider import ProviderConfig
from proxy.registry import Registry
from proxy.state.sessions import SessionStore
from proxy.state.store import PATIENCE, Store
from proxy.tally import Outcome
from proxy.testing import ScriptedAdapter
from proxy.upstream import Upstream
from tests.redis_server import RedisServer
from tests.state.stores import Stores, stores_at

pytestmark = pytest.mark.anyio


class Adapter(ScriptedAdapter):
    """What it does when made ready or closed stands in `making` and `closing`, by provider id."""

    making: ClassVar[dict[str, asyncio.Event | Exception]] = {}
    closing: ClassVar[dict[str, asyncio.Event]] = {}

    def __init__(self, config: ProviderConfig, session: aiohttp.ClientSession):
        super().__init__(config, session)
        self.made = self.closed = False

    async def create_model(self) -> None:
        plan = self.making.get(self.config.provider_id)
        if isinstance(plan, Exception):
            raise plan
        if plan is not None:
            await plan.wait()
        self.made = True

    async def close(self) -> None:
        if event := self.closing.get(self.config.provider_id):
            await event.wait()
        self.closed = True


@pytest.fixture(autouse=True)
def plans() -> Iterator[None]:
    yield
    Adapter.making.clear()
    Adapter.closing.clear()


def config(provider_id: str, **fields: Any) -> ProviderConfig:
    return ProviderConfig(**{"provider_id": provider_id, "provider_type": "scripted", "model_name": "m", **fields})


class Replica(Fleet):
    def __init__(self, store: Store):
        registry = Registry()
        registry.add_adapter("scripted", Adapter)
        super().__init__(store, Router(registry, cast(aiohttp.ClientSession, None)), SessionStore(store, ttl=3600))

    async def beat(self, *, slow: bool = False) -> None:
        if slow:
            self._last_slow = -100.0
        await self._try_beat()

    def let_pass(self, seconds: float) -> None:
        """As if whatever has gone had gone so much earlier."""
        self._gone = {name: since - seconds for name, since in self._gone.items()}

    def count(self, provider_id: str, times: int = 1) -> None:
        upstream = self.router.get(provider_id)
        assert upstream, f"{provider_id} is not served"
        for _ in range(times):
            upstream.meter.record(Outcome(seconds=1))

    async def add(self, provider_id: str, **fields: Any) -> Upstream:
        upstream = self.router.build(config(provider_id, **fields), managed=True)
        await self.register(upstream)
        return upstream

    def adapter(self, provider_id: str) -> Adapter:
        upstream = self.router.get(provider_id)
        assert upstream, f"{provider_id} is not served"
        return cast(Adapter, upstream.adapter)

    def serves(self) -> list[str]:
        return sorted(upstream.id for upstream in self.router)

    async def requests(self, provider_id: str) -> int:
        figures = (await self.stats.total()).get(provider_id)
        return figures.windows["total"].requests if figures else 0


@pytest.fixture(params=["embedded", "redis"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    url = request.getfixturevalue("redis_server").url if request.param == "redis" else None
    async with stores_at(url) as opened:
        yield opened


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
async def embedded() -> AsyncIterator[Stores]:
    async with stores_at(None) as opened:
        yield opened


@pytest.fixture
async def one(stores: Stores) -> Replica:
    return Replica(stores())


@pytest.fixture
async def two(stores: Stores) -> Replica:
    return Replica(stores())


@pytest.fixture
async def alone(embedded: Stores) -> Replica:
    return Replica(embedded())


async def until(true: Callable[[], bool], seconds: float = 5.0) -> float:
    """Waits for something that a real server or a running beat brings about; how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it does not happen"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def forget(store: Store) -> None:
    """What a Redis without persistence does when it restarts."""
    for key in await store.client.keys(store.key("*")):
        await store.client.delete(key)


async def test_what_one_registers_another_serves_a_beat_later(one: Replica, two: Replica, stores: Stores) -> None:
    await two.beat()
    await one.add("a", api_key="sk-secret", params={"n": 1})
    assert one.serves() == ["a"]
    await two.beat()
    assert two.adapter("a").config == one.adapter("a").config
    assert two.router.get("a").managed  # type: ignore[union-attr]
    late = Replica(stores())
    await late.beat()
    assert late.serves() == ["a"], "a registration outlives those who knew it"


async def test_a_change_reaches_the_others(one: Replica, two: Replica) -> None:
    await one.add("a")
    await two.beat()
    old = two.adapter("a")
    await one.add("a", priority=7)
    await one.add("b")
    await two.beat()
    assert two.adapter("a").config.priority == 7
    assert old.closed
    same = two.adapter("b")
    await one.add("a", priority=8)
    await two.beat()
    assert two.adapter("b") is same, "only what has changed is touched"


async def test_a_removal_reaches_the_others_and_streams_end_in_peace(one: Replica, two: Replica) -> None:
    await one.add("a")
    await two.beat()
    upstream, adapter = two.router.get("a"), two.adapter("a")
    assert upstream
    upstream.began()
    await one.unregister("a")
    await two.beat()
    assert one.serves() == two.serves() == []
    assert not adapter.closed
    upstream.ended()
    await until(lambda: adapter.closed)


async def test_the_file_wins_over_the_store(one: Replica, two: Replica) -> None:
    await two.use_file({"a": config("a", priority=1)})
    await one.add("a", priority=2)
    await two.beat()
    assert two.adapter("a").config.priority == 1
    await two.use_file({})
    assert two.adapter("a").config.priority == 2
    await two.use_file({"a": config("a", priority=3)})
    assert two.adapter("a").config.priority == 3


async def test_a_wrong_file_changes_nothing(alone: Replica) -> None:
    await alone.use_file({"a": config("a")})
    before = alone.adapter("a")
    with pytest.raises(ConfigError):
        await alone.use_file({"b": config("b"), "c": config("c", provider_type="unheard-of")})
    assert alone.adapter("a") is before
    assert alone.serves() == ["a"]


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (
            '{"provider_id": "odd", "provider_type": "scripted", "model_name": "m", "api_key2": "sk-secret"}',
            "api_key2: ",
        ),
        ('{"api_key": "sk-secret"', "Invalid JSON"),
        ('"sk-secret"', "object"),
        (
            '{"provider_id": "odd", "provider_type": "unheard-of", "model_name": "m", "api_key": "sk-secret"}',
            "unheard-of",
        ),
    ],
    ids=["a newer Weir's", "broken", "no object", "no plugin"],
)
async def test_a_registration_this_replica_cannot_use_is_skipped(
    one: Replica, two: Replica, stored: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    await one.providers.save("odd", stored)
    await one.add("a")
    for _ in range(3):
        await two.beat()
        await one.circuits.push({"a": Verdict(generation=_ + 1)})  # everyone looks again
    assert two.serves() == ["a"]
    (line,) = caplog.messages
    assert "provider odd " in line
    assert said in line
    assert "sk-secret" not in line
    await forget(two.store)
    await two.beat()
    assert (await two.providers.load()).configs["odd"] == stored, "it is kept for those who can read it"


async def test_a_redis_that_lost_its_memory_is_told_again(one: Replica, two: Replica, stores: Stores) -> None:
    await one.add("a")
    await two.beat()
    await two.add("b")
    await one.beat()
    for replica in (one, two):  # either may be the one that notices
        replica.router.get("b").circuit.learn(Verdict(4, open=True, until=5e9))  # type: ignore[union-attr]
    await forget(stores())
    await asyncio.gather(one.beat(), two.beat())
    late = Replica(stores())
    for replica in (one, two, late, one, two, late):
        await replica.beat()
    assert one.serves() == two.serves() == late.serves() == ["a", "b"]
    assert late.router.get("b").circuit.verdict.open  # type: ignore[union-attr]


async def test_who_knows_nothing_does_not_hide_that_redis_lost_its_memory(
    one: Replica, two: Replica, stores: Stores
) -> None:
    """A replica that started while Redis was away may well be the first to find it empty."""
    await one.add("a")
    await one.beat()
    await two.beat()
    await forget(stores())
    late = Replica(stores())
    for replica in (late, one, two, late):
        await replica.beat()
        await replica.beat()
    assert one.serves() == two.serves() == late.serves() == ["a"]


async def test_nor_does_a_redis_that_dropped_the_registrations_alone(one: Replica, two: Replica) -> None:
    """As an eviction would: what is read seldom goes first, and the version is read all the time."""
    await one.add("a")
    for replica in (one, two):
        await replica.beat()
    await one.store.client.delete(one.store.key("providers"))
    await two.add("b")
    for replica in (one, two, one):
        await replica.beat()
    assert one.serves() == two.serves() == ["a", "b"]


async def test_telling_it_again_is_no_step_back(one: Replica, two: Replica, stores: Stores) -> None:
    await one.add("a", priority=1)
    await two.beat()
    await forget(stores())
    await one.add("a", priority=2)  # by a client who was faster than any beat
    await two.providers.restore(two._stored)  # two had seen the loss before that
    for replica in (one, two):
        await replica.beat()
        assert replica.adapter("a").config.priority == 2


async def test_who_registers_is_not_set_back_by_a_look_of_before(one: Replica, two: Replica) -> None:
    await two.add("z")
    look = one._look

    async def meanwhile() -> Any:
        found = await look()
        await one.add("a")
        return found

    one._look = meanwhile  # type: ignore[method-assign]
    await one.beat()
    one._look = look  # type: ignore[method-assign]
    assert one.serves() == ["a"]
    await one.beat()
    assert one.serves() == ["a", "z"]


async def test_nothing_is_changed_here_if_redis_does_not_take_it(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        replica = Replica(stores())
        await replica.add("a")
        redis_server.kill()
        with pytest.raises(StoreAway):
            await replica.add("b")
        with pytest.raises(StoreAway):
            await replica.unregister("a")
        assert replica.serves() == ["a"]


async def test_verdicts_travel(one: Replica, two: Replica) -> None:
    await one.add("a")
    await two.beat()
    mine, theirs = (replica.router.get("a") for replica in (one, two))
    assert mine
    assert theirs
    for _ in range(FAILURES):
        mine.circuit.failed(mine.circuit.generation, now=time.time())
    await one.beat()
    await two.beat()
    assert theirs.circuit.verdict == mine.circuit.verdict
    assert theirs.circuit.verdict.open
    assert not mine.circuit.changed
    theirs.circuit.first_token(theirs.circuit.generation, time.time())
    await two.beat()
    await one.beat()
    assert not mine.circuit.verdict.open


async def test_of_two_verdicts_at_once_both_know_the_one_that_counts(one: Replica, two: Replica) -> None:
    await one.add("a")
    await two.beat()
    for replica, ejections in ((one, 1), (two, 2)):
        circuit = replica.router.get("a").circuit  # type: ignore[union-attr]
        circuit.learn(Verdict(1, True, until=5e9 + ejections, ejections=ejections))
        circuit.changed = True
    await asyncio.gather(one.beat(), two.beat())
    for replica in (one, two, one, two):
        await replica.beat()
    verdicts = [replica.router.get("a").circuit.verdict for replica in (one, two)]  # type: ignore[union-attr]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0].ejections == 2


async def test_a_new_provider_is_not_left_out_for_what_one_of_its_name_did(one: Replica, two: Replica) -> None:
    upstream = await one.add("a")
    upstream.circuit.learn(Verdict(1, True, until=5e9))
    upstream.circuit.changed = True
    await one.beat()
    await one.unregister("a")
    await one.add("a")
    for replica in (one, two):
        await replica.beat()
        assert replica.router.get("a").usable()  # type: ignore[union-attr]


async def test_a_provider_that_was_changed_in_the_file_is_given_another_chance(alone: Replica) -> None:
    await alone.use_file({"a": config("a"), "b": config("b")})
    for name in ("a", "b"):
        alone.router.get(name).circuit.learn(Verdict(1, True, until=5e9))  # type: ignore[union-attr]
    await alone.use_file({"a": config("a", api_key="the right one"), "b": config("b")})
    assert [up.id for up in alone.router if up.usable()] == ["a"]


async def test_one_that_was_replaced_is_given_another_chance_everywhere(one: Replica, two: Replica) -> None:
    """Also where its removal went unnoticed, because it was registered anew at once."""
    await one.add("a")
    await two.beat()
    two.router.get("a").circuit.learn(Verdict(1, True, until=5e9))  # type: ignore[union-attr]
    await one.unregister("a")
    await one.add("a", priority=2)
    await two.beat()
    assert two.router.get("a").usable()  # type: ignore[union-attr]


async def test_figures_of_all_and_of_the_dead(one: Replica, two: Replica, stores: Stores) -> None:
    await one.add("a")
    for replica in (one, two):
        await replica.beat()
        upstream = replica.router.get("a")
        assert upstream
        upstream.meter.record(Outcome(seconds=1, failure=Kind.SERVER))
        await replica.beat()
        await replica.stats.read()
    assert await two.requests("a") == 2
    await two.store.client.delete(two.store.key("process", one.stats.process))
    await two.beat(slow=True)
    assert await two.store.client.smembers(two.store.key("processes")) == {two.stats.process}
    await two.stats.read()
    assert await two.requests("a") == 2
    await one.beat(slow=True)  # it had only slept
    await one.stats.read()
    assert await one.requests("a") == 2


async def counted_and_removed(one: Replica, two: Replica, times: int = 5) -> None:
    """A provider at which both have counted, and that both know to be gone."""
    await one.add("a")
    for replica in (two, one, two):
        await replica.beat()
    for replica in (one, two):
        replica.count("a", times)
        await replica.beat()
    await one.unregister("a")
    for replica in (one, two):
        await replica.beat()


async def test_figures_of_a_removed_provider_are_forgotten(one: Replica, two: Replica, stores: Stores) -> None:
    await counted_and_removed(one, two)
    for replica in (one, two):
        replica.let_pass(FORGOTTEN)
        await replica.beat(slow=True)
        await replica.beat()
    late = Replica(stores())
    await late.stats.read()
    assert (await one.requests("a"), await two.requests("a"), await late.requests("a")) == (0, 0, 0)
    one.let_pass(FORGOTTEN)
    await one.beat(slow=True)
    assert not one._gone, "it is forgotten for ever"


async def test_a_replica_that_dies_before_it_has_forgotten_brings_nothing_back(one: Replica, two: Replica) -> None:
    await counted_and_removed(one, two)
    one.let_pass(FORGOTTEN)
    await one.beat(slow=True)
    await two.store.client.delete(two.store.key("process", two.stats.process))
    for _ in range(2):  # the dead are folded, and forgotten
        await one.beat(slow=True)
    await one.stats.read()
    assert await one.requests("a") == 0


async def test_those_of_the_dead_go_too(one: Replica, two: Replica, stores: Stores) -> None:
    await counted_and_removed(one, two)
    await two.store.client.delete(two.store.key("process", two.stats.process))
    await one.beat(slow=True)
    one.let_pass(FORGOTTEN)
    for _ in range(2):
        await one.beat(slow=True)
    late = Replica(stores())
    await late.stats.read()
    assert await late.requests("a") == 0


async def test_a_provider_that_comes_back_in_time_has_its_figures_still(one: Replica, two: Replica) -> None:
    """Whoever replaces a registration may well remove it first: nobody is to count from where others do not."""
    await counted_and_removed(one, two)
    await one.add("a")
    for replica in (one, two, one, two):
        replica.let_pass(FORGOTTEN)
        await replica.beat(slow=True)
        await replica.stats.read()
        assert await replica.requests("a") == 10
    one.count("a")
    await one.beat()
    await two.stats.read()
    assert await two.requests("a") == 11


async def test_who_does_not_know_yet_that_it_came_back_forgets_nothing(one: Replica, two: Replica) -> None:
    await counted_and_removed(one, two)
    await one.add("a")
    two.let_pass(FORGOTTEN)
    look = two._look

    async def overtaken() -> Any:
        found = await look()
        await two.add("b")  # by a client, while the beat looks: what it saw is out of date
        return found

    two._look = overtaken  # type: ignore[method-assign]
    await two.beat(slow=True)
    two._look = look  # type: ignore[method-assign]
    await two.beat()
    await two.stats.read()
    assert await two.requests("a") == 10


async def test_who_comes_back_in_the_very_moment_counts_where_it_is_seen(one: Replica, two: Replica) -> None:
    await counted_and_removed(one, two)
    for turns in range(30):
        one._gone["a"] = -FORGOTTEN
        beat = asyncio.create_task(one.beat(slow=True))
        for _ in range(turns):
            await asyncio.sleep(0)
        await one.use_file({"a": config("a")})
        await beat
        upstream = one.router.get("a")
        assert upstream
        assert upstream.meter is one.stats.meters["a"], f"after {turns} turns of the loop: nobody sees what it counts"
        await one.use_file({})
        await one.beat()


async def test_what_could_not_be_served_here_is_forgotten_too(one: Replica, two: Replica) -> None:
    await one.add("a")
    await two.beat()
    two.count("a")
    await one.providers.save("a", '{"provider_id": "a", "nobody": "knows"}')
    await two.beat()
    await one.providers.delete("a")
    for _ in range(2):
        await two.beat(slow=True)
        two.let_pass(FORGOTTEN)
    await two.beat(slow=True)
    assert await two.requests("a") == 0


async def test_who_comes_late_counts_into_new_figures(one: Replica, two: Replica) -> None:
    await counted_and_removed(one, two)
    again = one.router.build(config("a"), managed=True)  # by a client who asked before the figures went
    for replica in (one, two):
        replica.let_pass(FORGOTTEN)
        await replica.beat(slow=True)
    await one.register(again)
    one.count("a")
    await two.beat()
    await one.beat()
    await two.stats.read()
    assert await one.requests("a") == await two.requests("a") == 1


async def test_figures_of_what_was_not_removed_stay(one: Replica, two: Replica, stores: Stores) -> None:
    """A registration that a newer Weir has changed, in a way that we cannot read; and one that left the file."""
    await one.add("a")
    await two.beat()
    await two.use_file({"b": config("b")})
    two.count("a", 3)
    two.count("b", 4)
    await two.beat()
    await one.providers.save("a", '{"provider_id": "a", "nobody": "knows"}')
    await two.use_file({})
    await two.beat()
    assert two.serves() == []
    two.let_pass(FORGOTTEN)
    await two.beat(slow=True)
    late = Replica(stores())
    await late.stats.read()
    assert (await late.requests("a"), await late.requests("b")) == (3, 4)


async def test_what_cannot_be_forgotten_yet_is_forgotten_later(
    one: Replica, two: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await counted_and_removed(one, two)
    await two.stats.leave()

    async def away(provider_id: str) -> None:
        raise ConnectionError("Redis went away")

    one.let_pass(FORGOTTEN)
    with monkeypatch.context() as patch:
        patch.setattr(one.stats, "forget", away)
        await one.beat(slow=True)
    for _ in range(2):
        await one.beat(slow=True)
    await one.stats.read()
    assert await one.requests("a") == 0


async def test_a_refused_registration_leaves_no_figures(alone: Replica) -> None:
    alone.router.build(config("a"), managed=True)
    with pytest.raises(ConfigError):
        alone.router.build(config("b", provider_type="nobody's"), managed=True)
    assert not alone.stats.meters


@pytest.mark.parametrize("change", ["register", "unregister"])
async def test_a_registration_does_not_hide_that_redis_lost_its_memory(
    one: Replica, two: Replica, stores: Stores, change: str
) -> None:
    """A client may be faster than any beat: what the others have registered must not seem to have been removed."""
    for name in ("a", "b"):
        await one.add(name)
    for replica in (one, two):
        await replica.beat()
    await forget(stores())
    await (one.add("c") if change == "register" else one.unregister("b"))
    for replica in (one, two, one, two):
        await replica.beat()
    assert one.serves() == two.serves() == (["a", "b", "c"] if change == "register" else ["a"])


async def test_the_first_beat_serves_what_is_registered_in_a_store_without_a_version(
    one: Replica, two: Replica
) -> None:
    await one.add("a")
    await one.store.client.delete(one.store.key("version"))
    await two.beat()
    assert two.serves() == ["a"]


async def test_a_verdict_does_not_hide_that_redis_lost_its_memory(one: Replica, stores: Stores) -> None:
    """It comes before the look, and what was registered must not seem to have been removed."""
    await one.add("a")
    await one.beat()
    await forget(stores())
    circuit = one.router.get("a").circuit  # type: ignore[union-attr]
    for _ in range(FAILURES):
        circuit.failed(circuit.generation, time.time())
    assert circuit.changed
    late = Replica(stores())
    for replica in (one, one, late, late):
        await replica.beat()
    assert one.serves() == late.serves() == ["a"]
    assert late.router.get("a").circuit.verdict.open  # type: ignore[union-attr]


async def test_an_adapter_that_closes_slowly_holds_up_nobody(one: Replica, two: Replica) -> None:
    await one.add("a")
    await one.add("b")
    await two.beat()
    a, b = two.adapter("a"), two.adapter("b")
    gate = Adapter.closing["a"] = asyncio.Event()
    Adapter.closing["b"] = gate
    async with asyncio.timeout(2):
        await one.unregister("a")
        await one.add("b", priority=9)
        await two.beat()
        await two.beat()
        assert two.serves() == ["b"]
        assert two.adapter("b").config.priority == 9
        assert not a.closed
        leaving = asyncio.create_task(two.leave())
        gate.set()
        await leaving
    assert a.closed
    assert b.closed


async def test_an_adapter_that_gets_ready_slowly_holds_up_nobody(one: Replica, two: Replica) -> None:
    await two.join({})
    made = Adapter.making["a"] = asyncio.Event()
    Adapter.making["b"] = ConfigError(["there is no engine"])
    await one.add("a")
    await one.add("b")
    async with asyncio.timeout(2):
        await two.beat()
        assert two.serves() == ["a", "b"]
        made.set()
        await until(lambda: two.adapter("a").made)  # before anyone asks
        await two.leave()


async def test_an_adapter_that_never_gets_ready_does_not_keep_anyone_from_leaving(
    alone: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    await alone.join({})
    Adapter.making |= {"a": asyncio.Event(), "b": ConfigError(["there is no engine"])}
    await alone.use_file({"a": config("a"), "b": config("b")})
    await until(lambda: bool(caplog.messages))
    assert caplog.messages == ["provider b cannot be made ready: there is no engine"]
    async with asyncio.timeout(2):
        await alone.leave()
        await alone.router.close()


async def test_the_beat_survives_anything(alone: Replica, caplog: pytest.LogCaptureFixture) -> None:
    flush = alone.stats.flush

    async def broken() -> None:
        raise KeyError("what?")

    alone.stats.flush = broken  # type: ignore[method-assign]
    await alone.join({"a": config("a")})
    for _ in range(3):
        await alone.beat(slow=True)
    assert caplog.messages == ["keeping in step with the fleet failed: KeyError('what?')"]
    assert caplog.records[0].exc_info
    alone.stats.flush = flush  # type: ignore[method-assign]
    await alone.beat(slow=True)
    alone.stats.flush = broken  # type: ignore[method-assign]
    alone.stats.meter("a").record(Outcome(seconds=1))
    await alone.beat()
    assert len(caplog.messages) == 2, "it is news again"
    alone.stats.flush = flush  # type: ignore[method-assign]
    await alone.leave()


async def test_what_grows_old_in_redis_does_not_stop_the_beat(one: Replica, two: Replica) -> None:
    """Keys that somebody else wrote are trouble, said and survived; who registers meanwhile is told."""
    await one.add("a")
    await one.store.client.delete(one.store.key("circuits"))
    await one.store.client.set(one.store.key("circuits"), "not a hash")
    await two.beat()
    assert two.store.away
    await one.store.client.delete(one.store.key("circuits"))
    await two.beat()
    assert not two.store.away
    assert two.serves() == ["a"]


async def test_redis_comes_and_goes_under_a_running_fleet(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        await Replica(stores()).add("stored")
        redis_server.kill()
        replica = Replica(stores())
        await replica.join({"file": config("file")})
        assert replica.serves() == ["file"], "Redis is away at the start"
        assert replica.store.away
        await asyncio.to_thread(redis_server.start)
        assert await until(lambda: not replica.store.away) < 2
        assert replica.serves() == ["file", "stored"]
        redis_server.pause()
        await until(lambda: replica.store.away)
        began = time.monotonic()
        assert await replica.circuits.claim("file", 1)
        with pytest.raises(StoreAway):
            await replica.store.wait("statistics", replica.stats.read())
        assert time.monotonic() - began < PATIENCE, "nobody even asks"
        replica.stats.meter("file").record(Outcome(seconds=1))
        redis_server.resume()
        assert await until(lambda: not replica.store.away) < 2
        reader = Replica(stores())
        await reader.stats.read()
        assert await reader.requests("file") == 1
        await replica.leave()


async def test_leaving_while_redis_hangs_is_quick(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        for knows in (False, True):
            replica = Replica(stores())
            await replica.join({})
            redis_server.pause()
            if knows:
                await until(lambda: replica.store.away)  # noqa: B023
            began = time.monotonic()
            await replica.leave()
            assert time.monotonic() - began < 2 * PATIENCE
            redis_server.resume()


async def test_leaving_in_the_middle_of_a_beat_loses_nothing(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        reader, counted = Replica(stores()), 0
        for turn in range(30):
            replica = Replica(stores())
            await replica.join({})
            replica.stats.meter("a").record(Outcome(seconds=1))
            counted += 1
            beat = asyncio.create_task(replica.beat())
            for _ in range(turn):
                await asyncio.sleep(0)
            beat.cancel()
            await replica.leave()
            await asyncio.gather(beat, return_exceptions=True)
        await reader.stats.read()
        assert await reader.requests("a") == counted


async def test_a_running_beat_hears_of_the_others(one: Replica, two: Replica) -> None:
    await two.join({})
    await one.add("a")
    assert await until(lambda: two.serves() == ["a"]) < 2
    await two.leave()
    await one.leave()
    assert await one.store.client.smembers(one.store.key("processes")) == set()


async def test_an_idle_process_costs_next_to_nothing(redis_server: RedisServer) -> None:
    """A second of an idle replica is five looks at the version, a renewed lease, and a look for dead processes."""
    async with stores_at(redis_server.url) as stores:
        one, two = Replica(stores()), Replica(stores())
        for replica in (one, two):
            await replica.add("a")
            replica.stats.meter("a").record(Outcome(seconds=1))
            await replica.beat()
        await one.beat()
        before = redis_server.calls()
        for number in range(20):
            await one.beat(slow=number % 5 == 0)
        after = redis_server.calls()
    cost = {name: calls - before.get(name, 0) for name, calls in after.items() if calls != before.get(name, 0)}
    assert cost == {"get": 20, "pexpire": 4, "smembers": 4, "mget": 4}
