"""Figures are exact: over processes, outages, lost replies, sleepers, and the dead."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from proxy.errors import Kind, StoreAway
from proxy.state.stats import StatsStore
from proxy.state.store import Lost, Store
from proxy.tally import Outcome, Tally
from tests.redis_server import RedisServer
from tests.state.stores import Stores, stores_at

pytestmark = pytest.mark.anyio


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def count(process: StatsStore, times: int = 1, failure: Kind | None = None, provider: str = "a") -> None:
    for _ in range(times):
        process.meter(provider).record(Outcome(seconds=0.5, failure=failure, output_tokens=3), "broken")


async def seen_by(reader: StatsStore, window: str = "total", provider: str = "a") -> int:
    await reader.read()
    figures = (await reader.total()).get(provider)
    return figures.windows[window].requests if figures else 0


async def seen_by_all(*readers: StatsStore) -> int:
    (seen,) = {await seen_by(reader) for reader in readers}
    return seen


async def reap(process: StatsStore) -> None:
    for dead in await process.dead():
        await process.fold(dead)


async def expire(store: Store, process: StatsStore) -> None:
    assert await store.client.delete(store.key("process", process.process)), "there was no lease"


async def bury(store: Store, process: StatsStore, other: StatsStore) -> None:
    """`process` is taken for dead, and `other` folds it."""
    await expire(store, process)
    await reap(other)


@contextlib.contextmanager
def losing(store: Store, *, landed: bool) -> Iterator[None]:
    """Every transaction's reply is lost, after it `landed` or before."""
    pipeline = store.client.pipeline

    def broken(**options: Any) -> Any:
        pipe = pipeline(**options)
        execute = pipe.execute

        async def lost() -> None:
            if landed:
                await execute()
            raise RedisConnectionError("cut")

        pipe.execute = lost
        return pipe

    store.client.pipeline = broken
    try:
        yield
    finally:
        del store.client.pipeline


async def flush_into_the_void(process: StatsStore, store: Store, *, landed: bool) -> None:
    with losing(store, landed=landed), pytest.raises(RedisConnectionError):
        await process.flush()


async def test_processes_add_up(stores: Stores) -> None:
    processes = [StatsStore(stores()) for _ in range(3)]
    for number, process in enumerate(processes):
        count(process, 10 + number)
        await process.flush()
    assert await seen_by_all(*processes, StatsStore(stores())) == 33


async def test_own_figures_need_no_flush(stores: Stores) -> None:
    process = StatsStore(stores())
    count(process)
    assert await seen_by(process) == 1


async def test_the_same_flush_twice_counts_once(stores: Stores, store: Store) -> None:
    process = StatsStore(store)
    count(process, 5)
    await process.flush()
    for meter in process.meters.values():
        meter.changed.update(meter.tallies)
    await process.flush()
    assert await seen_by_all(process, StatsStore(stores())) == 5


@pytest.mark.parametrize("landed", [True, False])
async def test_a_lost_reply_counts_once(stores: Stores, store: Store, landed: bool) -> None:
    process, reader = StatsStore(store), StatsStore(stores())
    count(process, 5)
    await flush_into_the_void(process, store, landed=landed)
    assert await seen_by(reader) == (5 if landed else 0)
    assert not process.idle()
    count(process, 2)
    await process.flush()
    assert await seen_by_all(process, reader) == 7


async def test_a_first_flush_with_a_lost_reply_then_taken_for_dead(stores: Stores, store: Store) -> None:
    process, other = StatsStore(store), StatsStore(stores())
    count(process, 5)
    await flush_into_the_void(process, store, landed=True)
    await bury(store, process, other)
    await process.flush()
    assert await seen_by_all(process, other) == 5


async def test_an_outage_loses_nothing(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        store = stores()
        process, other = StatsStore(store), StatsStore(stores())
        count(process, 3)
        await process.flush()
        redis_server.kill()
        for _ in range(3):
            count(process)
            with pytest.raises(StoreAway):
                await store.attempt("statistics", process.flush())
        assert (await process.total())["a"].windows["total"].requests == 6, "what is known is shown"
        redis_server.start()
        await store.attempt("statistics", process.flush())
        assert await seen_by_all(process, other) == 6


async def test_a_connection_cut_between_exec_and_its_reply(shared_redis: RedisServer) -> None:
    async with stores_at(shared_redis.url) as direct, Cutter(shared_redis.port) as cutter:
        behind = Stores(f"redis://127.0.0.1:{cutter.port}")
        behind.prefix = direct.prefix
        process, reader = StatsStore(behind()), StatsStore(direct())
        count(process, 5)
        cutter.cutting = True
        with pytest.raises((Lost, RedisConnectionError)):
            await process.flush()
        assert await seen_by(reader) == 5, "it landed"
        cutter.cutting = False
        await process.flush()
        assert await seen_by_all(process, reader) == 5
        await behind.close()


class Cutter:
    """A relay to a Redis that breaks a connection when the reply to an EXEC comes, if it is `cutting`."""

    def __init__(self, target: int):
        self.cutting = False
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Cutter":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.create_task(self._relay(reader, writer)))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            while data := await reader.read(65536):
                down.write(data)
                reply = await up.read(65536)
                if self.cutting and b"EXEC" in data:
                    return
                writer.write(reply)
        finally:
            down.close()
            writer.close()
            with contextlib.suppress(OSError):
                await asyncio.gather(down.wait_closed(), writer.wait_closed())


async def test_the_dead_are_folded_once_however_many_try(stores: Stores) -> None:
    keeper, first, second = stores(), StatsStore(stores()), StatsStore(stores())
    for number in range(1, 31):
        process = StatsStore(stores() if stores.url is None else keeper)
        count(process)
        await process.flush()
        await expire(keeper, process)
        await asyncio.gather(reap(first), reap(second))
        assert await seen_by_all(first, second) == number
        assert not await keeper.client.exists(keeper.key("stats", process.process))
    assert await keeper.client.smembers(keeper.key("processes")) == set()


async def test_many_dead_at_once(stores: Stores, store: Store) -> None:
    dead = [StatsStore(store) for _ in range(20)]
    for process in dead:
        count(process)
        await process.flush()
        await expire(store, process)
    reapers = [StatsStore(stores()) for _ in range(3)]
    await asyncio.gather(*map(reap, reapers))
    assert await seen_by_all(*reapers) == 20
    while await reapers[0].dead():  # a race may leave some to the next beat
        await reap(reapers[0])
    assert await seen_by_all(*reapers) == 20


async def test_a_sleeper_comes_back_again_and_again(stores: Stores, store: Store) -> None:
    process, other = StatsStore(store), StatsStore(stores())
    for round_ in range(1, 4):
        count(process, 5)
        await process.flush()
        await bury(store, process, other)
        assert await seen_by(other) == round_ * 10 - 5
        count(process, 5)  # before it notices
        await process.flush()
        assert await seen_by_all(process, other, StatsStore(stores())) == round_ * 10


async def test_a_sleeper_that_has_not_noticed_is_not_counted_twice(stores: Stores, store: Store) -> None:
    process, other = StatsStore(store), StatsStore(stores())
    count(process, 5)
    await process.flush()
    await bury(store, process, other)
    count(process)
    assert await seen_by(process) == 6
    assert await seen_by(process) == 6
    await process.flush()
    assert await seen_by_all(process, other) == 6


async def test_a_sleeper_noticed_by_flush_and_read_at_once(stores: Stores, store: Store) -> None:
    other = StatsStore(stores())
    process = StatsStore(store)
    for round_ in range(1, 21):
        count(process)
        await process.flush()
        await bury(store, process, other)
        await asyncio.gather(process.flush(), process.read(), process.flush(), process.read(), return_exceptions=True)
        await process.flush()
        assert await seen_by_all(process, other) == round_


async def test_who_wakes_while_being_folded_stays_exact(stores: Stores, store: Store) -> None:
    process, other = StatsStore(store), StatsStore(stores())
    for round_ in range(1, 21):
        count(process)
        await process.flush()
        await expire(store, process)
        count(process)
        await asyncio.gather(process.flush(), reap(other), return_exceptions=True)
        await process.flush()
        assert await seen_by_all(process, other) == 2 * round_


async def test_a_fold_with_a_lost_reply_counts_once(stores: Stores, store: Store) -> None:
    process, other = StatsStore(stores()), StatsStore(store)
    count(process, 5)
    await process.flush()
    await expire(store, process)
    with losing(store, landed=True), pytest.raises(RedisConnectionError):
        await reap(other)
    await reap(other)
    await process.flush()
    assert await seen_by_all(process, other) == 5


async def test_a_redis_that_forgot_everything_gets_own_totals_back(stores: Stores, store: Store) -> None:
    process, idle = StatsStore(store), StatsStore(stores())
    for each in (process, idle):
        count(each, 5)
        await each.flush()
    for key in await store.client.keys(store.key("*")):
        await store.client.delete(key)
    count(process, 2)
    await process.flush()
    assert idle.idle()
    await idle.renew()
    assert await seen_by_all(process, idle, StatsStore(stores())) == 12


async def test_leaving_folds_at_once(stores: Stores, store: Store) -> None:
    process, other = StatsStore(store), StatsStore(stores())
    count(process, 5)
    process.meter("a").active = 1
    await process.leave()
    assert await store.client.smembers(store.key("processes")) == set()
    assert await seen_by(other) == 5
    assert (await other.total())["a"].active == 0
    assert await other.dead() == []


async def test_leaving_writes_what_a_broken_flush_held_back(stores: Stores, store: Store) -> None:
    process = StatsStore(store)
    await process.flush()
    count(process, 5)
    for meter in process.meters.values():
        meter.changed = set()  # a flush has it in its hands, and was cancelled
    await process.leave()
    assert await seen_by(StatsStore(stores())) == 5


async def test_windows_slide_and_redis_forgets_what_left_them(stores: Stores, store: Store) -> None:
    clock = Clock()
    process, reader = StatsStore(store, clock), StatsStore(stores(), clock)
    count(process)
    await process.flush()
    clock.now += 59
    assert await seen_by(reader, "minute") == 1
    clock.now += 11
    assert [await seen_by(reader, window) for window in ("minute", "hour", "total")] == [0, 1, 1]
    count(process)
    await process.flush()
    assert [await seen_by(reader, window) for window in ("minute", "hour", "total")] == [1, 2, 2]
    clock.now += 3600
    assert [await seen_by(reader, window) for window in ("minute", "hour", "total")] == [0, 0, 2]
    for _ in range(200):
        clock.now += 31
        count(process)
        await process.flush()
    fields = await store.client.hlen(store.key("stats", process.process))
    assert fields <= 1 + 3 + 6 + 60, "born; total, active and error; a minute of slots; an hour of slots"
    assert [await seen_by(reader, window) for window in ("minute", "total")] == [2, 202]


async def test_fields_that_a_failed_flush_did_not_remove_go_with_the_next(stores: Stores, store: Store) -> None:
    clock = Clock()
    process = StatsStore(store, clock)
    count(process)
    await process.flush()
    clock.now += 4000
    count(process)
    await flush_into_the_void(process, store, landed=False)
    await process.flush()
    assert await store.client.hlen(store.key("stats", process.process)) == 1 + 3 + 2


async def fields_of(store: Store, *name: str, provider: str = "a") -> list[str]:
    """Those of a provider in the hash of that name."""
    fields = await store.client.hkeys(store.key("stats", *name))
    return [field for field in fields if field.startswith(f"{provider}|")]


async def test_what_is_forgotten_leaves_nothing(stores: Stores, store: Store) -> None:
    dead, process, other = StatsStore(store), StatsStore(store), StatsStore(stores())
    for each in (dead, process, other):
        count(each, failure=Kind.SERVER)
        count(each, provider="b")
        await each.flush()
    await dead.leave()
    assert await seen_by(other) == 3
    await process.forget("a")
    assert not process.idle(), "the store is still to be told"
    await process.flush()
    assert process.idle()
    assert not await fields_of(store, process.process)
    assert not await fields_of(store, "retired")
    assert await seen_by(other) == 1, "its own: it forgets for itself"
    await other.forget("a")
    await other.flush()
    assert await seen_by(StatsStore(stores())) == 0
    assert await seen_by(other, provider="b") == 3, "the figures of others stay"


@pytest.mark.parametrize("landed", [True, False])
async def test_what_is_forgotten_goes_for_all_lost_replies(store: Store, landed: bool) -> None:
    process = StatsStore(store)
    count(process)
    await process.flush()
    await process.forget("a")
    await flush_into_the_void(process, store, landed=landed)
    await process.flush()
    assert not await fields_of(store, process.process)


async def test_what_still_runs_at_a_provider_that_is_forgotten_counts_for_nobody(store: Store) -> None:
    process = StatsStore(store)
    count(process)
    gone = process.meter("a")
    gone.active += 1
    await process.flush()
    await process.forget("a")
    gone.record(Outcome(seconds=1))
    gone.active -= 1
    await process.flush()
    assert not await fields_of(store, process.process)


async def test_another_provider_of_that_id_begins_anew(stores: Stores, store: Store) -> None:
    process, reader = StatsStore(store), StatsStore(stores())
    count(process, 5, failure=Kind.SERVER)
    process.meter("a").active += 1
    await process.flush()
    await process.forget("a")
    process.meter("a").active += 1
    count(process)
    await flush_into_the_void(process, store, landed=False)
    await process.flush()
    await process.flush()
    assert await seen_by(reader) == 1
    figures = (await reader.total())["a"]
    assert (figures.active, figures.last_error) == (1, None)


async def test_a_sleeper_takes_nothing_off_what_came_after(stores: Stores, store: Store) -> None:
    sleeper, other = StatsStore(store), StatsStore(stores())
    count(sleeper, 5)
    await sleeper.flush()
    await bury(store, sleeper, other)
    await sleeper.forget("a")
    count(sleeper)
    await sleeper.flush()
    assert await seen_by_all(sleeper, other) == 1


async def test_the_retired_totals_stay_small(stores: Stores, store: Store) -> None:
    clock = Clock()
    for _ in range(30):
        process = StatsStore(store, clock)
        count(process)
        await process.leave()
        clock.now += 400
    reader = StatsStore(stores(), clock)
    assert await seen_by(reader) == 30
    assert await store.client.hlen(store.key("stats", "retired")) <= 2 + 2 + 3600 / 400
    assert 8 <= await seen_by(reader, "hour") <= 10


async def test_a_flush_after_a_slot_was_forgotten_meanwhile(stores: Stores, store: Store) -> None:
    """A flush that was given up gives its slots back late; one that has left its window must not come up again."""
    clock = Clock()
    process = StatsStore(store, clock)
    count(process)
    with contextlib.suppress(RuntimeError), process._changes_taken():
        clock.now += 4000
        await process.flush()
        raise RuntimeError("given up")
    await process.flush()
    assert await seen_by(StatsStore(stores(), clock)) == 1


async def test_all_figures_are_the_same_on_every_replica(stores: Stores) -> None:
    clock = Clock()
    one, two = StatsStore(stores(), clock), StatsStore(stores(), clock)
    for process in (one, two):
        for seconds in (0.1, 0.2, 3.0):
            outcome = Outcome(seconds=seconds, first_token=seconds / 2, input_tokens=7, output_tokens=11)
            process.meter("a").record(outcome)
        count(process, 2, Kind.SERVER)
        process.meter("a").active = 2
        await process.flush()
    shown = []
    for process in (one, two):
        await process.read()
        figures = (await process.total())["a"]
        shown.append((figures.active, figures.last_error, {n: t.figures() for n, t in figures.windows.items()}))
    assert shown[0] == shown[1]
    active, error, windows = shown[0]
    assert active == 4
    assert error
    assert windows["minute"] == windows["total"]
    assert windows["total"]["failures"] == {"server": 4}
    assert windows["total"]["error_rate"] == 0.4


async def test_active_streams_come_and_go(stores: Stores, store: Store) -> None:
    process, reader = StatsStore(store), StatsStore(stores())
    await process.flush()
    for active in (2, 0):
        process.meter("a").active = active
        assert process.idle() is (active == 0 and "a" not in process._active)
        await process.flush()
        assert process.idle()
        await reader.read()
        assert (await reader.total())["a"].active == active


async def test_the_dead_run_no_streams(stores: Stores, store: Store) -> None:
    process, other = StatsStore(store), StatsStore(stores())
    process.meter("a").active = 3
    count(process)
    await process.flush()
    await bury(store, process, other)
    await other.read()
    assert (await other.total())["a"].active == 0
    await process.flush()  # it only slept, and so do its streams
    await other.read()
    assert (await other.total())["a"].active == 3


async def test_the_newest_error_is_the_last(stores: Stores, store: Store) -> None:
    clock = Clock()
    one, two, three = (StatsStore(stores(), clock) for _ in range(3))

    async def last() -> str | None:
        kinds = set()
        for reader in (one, two, three):
            await reader.read()
            error = (await reader.total())["a"].last_error
            kinds.add(error.kind if error else None)
        (kind,) = kinds
        return kind

    count(one)
    await one.flush()
    assert await last() is None
    count(two, failure=Kind.SERVER)
    await two.flush()
    clock.now += 1
    count(one, failure=Kind.TIMEOUT)
    await one.flush()
    assert await last() == "timeout"
    await two.leave()
    assert await last() == "timeout"
    two = StatsStore(stores(), clock)
    await bury(store, one, three)
    assert await last() == "timeout", "a dead process's error is remembered"
    count(three)  # and one that has none does not wipe it out
    await three.leave()
    assert await last() == "timeout"


async def test_idle_is_when_nothing_changed(stores: Stores, store: Store) -> None:
    process = StatsStore(store)
    assert process.idle()
    count(process)
    assert not process.idle()
    await process.flush()
    assert process.idle()
    await expire(store, process)
    await process.renew()
    assert await store.client.exists(store.key("process", process.process))


async def test_a_lease_ends_by_itself(stores: Stores, store: Store) -> None:
    process = StatsStore(store)
    await process.renew()
    lease = store.key("process", process.process)
    assert 0 < await store.client.pttl(lease) <= 5000
    await store.client.pexpire(lease, 100)
    await process.renew()
    assert await store.client.pttl(lease) > 100


async def test_figures_of_a_folded_process_are_kept_for_a_day(stores: Stores, store: Store) -> None:
    process = StatsStore(store)
    count(process)
    await process.leave()
    assert 86_000 < await store.client.ttl(store.key("gone", process.process)) <= 86_400


async def test_many_figures_hold_nobody_up(embedded: Stores) -> None:
    """A fleet of ten, with a hundred providers, has seventy thousand tallies."""
    stats = StatsStore(embedded(), Clock())
    tally = Tally()
    for number in range(1, 100):
        tally.count(Outcome(seconds=number))
    told = msgspec.json.encode(tally).decode()
    found = [{f"p{number}|hour:{slot}": told for number in range(20) for slot in range(60)} for _ in range(3)]
    loop = asyncio.get_running_loop()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = loop.create_task(others())
    await stats.take(found)
    assert turns > 30, "reading them is one step"
    turns = 0
    await stats.total()
    assert turns > 30, "adding them up is one step"
    beside.cancel()
