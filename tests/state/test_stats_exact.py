"""Whatever happens to processes, in whatever order: the sum is what was counted, and never more."""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import booleans, integers, sampled_from
from redis.exceptions import ConnectionError as RedisConnectionError

from proxy.state.stats import StatsStore
from proxy.state.store import Lost
from tests.redis_server import RedisServer
from tests.state.stores import Stores
from tests.state.test_stats import count, losing, reap, seen_by


class Process:
    """A process and what it should have: `counted` since it was born, `written` of it to the store."""

    def __init__(self, stores: Stores):
        self.store = stores()
        self.stats = StatsStore(self.store)
        self.counted = self.written = 0


class Fleet(RuleBasedStateMachine):
    """Asleep is who does nothing while its lease expires; the others may fold it then, and it does not know."""

    url: str | None = None
    processes = Bundle("processes")

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._stores = Stores(self.url)
        self._alive: list[Process] = []
        self._of_the_dead = 0
        self._reader = StatsStore(self._stores())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    def teardown(self) -> None:
        self.run(self._stores.close())
        self._runner.close()

    @initialize(target=processes)
    def first(self) -> Any:
        return multiple(self.born(), self.born())

    @precondition(lambda self: len(self._alive) < 3)
    @rule(target=processes)
    def born(self) -> Process:
        process = Process(self._stores)
        self._alive.append(process)
        return process

    @rule(process=processes, times=integers(1, 3))
    def count(self, process: Process, times: int) -> None:
        count(process.stats, times)
        process.counted += times

    @rule(process=processes, fate=sampled_from(["answered", "reply lost", "request lost"]))
    def flush(self, process: Process, fate: str) -> None:
        if fate == "answered":
            self.run(process.stats.flush())
        else:
            with losing(process.store, landed=fate == "reply lost"), pytest.raises(RedisConnectionError):
                self.run(process.stats.flush())
        if fate != "request lost":
            process.written = process.counted

    @rule(process=processes)
    def renew(self, process: Process) -> None:
        """What an idle process does."""
        if process.stats.idle():
            self.run(process.stats.renew())

    @rule(process=processes, reaper=processes, reply_lost=booleans())
    def sleep(self, process: Process, reaper: Process, reply_lost: bool) -> None:
        """Its lease expires; it is folded, unless it is the one that looks, and does not know of it."""
        self.run(process.store.client.delete(process.store.key("process", process.stats.process)))
        losses = losing(reaper.store, landed=True) if reply_lost else contextlib.nullcontext()
        with losses, contextlib.suppress(RedisConnectionError):
            self.run(reap(reaper.stats))

    @rule(one=processes, other=processes, sleeper=processes)
    def all_at_once(self, one: Process, other: Process, sleeper: Process) -> None:
        """Two reap while a third, whose lease expires just then, writes and reads."""
        self.run(sleeper.store.client.delete(sleeper.store.key("process", sleeper.stats.process)))

        async def race() -> Sequence[Any]:
            work = (reap(one.stats), sleeper.stats.flush(), reap(other.stats), sleeper.stats.read())
            return await asyncio.gather(*work, return_exceptions=True)

        results = self.run(race())
        for result in results:
            assert result is None or isinstance(result, Lost), result
        if results[1] is None:
            sleeper.written = sleeper.counted

    @rule(process=consumes(processes), killed=booleans())
    def end(self, process: Process, killed: bool) -> None:
        if not killed:
            self.run(process.stats.leave())
            process.written = process.counted
        self._alive.remove(process)
        self._of_the_dead += process.written

    @invariant()
    def the_sum_is_what_was_counted(self) -> None:
        written = self._of_the_dead + sum(process.written for process in self._alive)
        assert self.run(seen_by(self._reader)) == written
        for process in self._alive:
            assert self.run(seen_by(process.stats)) == written - process.written + process.counted


def light(examples: int) -> settings:
    checks = list(HealthCheck)
    return settings(
        max_examples=examples, stateful_step_count=20, deadline=None, database=None, suppress_health_check=checks
    )


def test_on_the_embedded_store() -> None:
    run_state_machine_as_test(Fleet, settings=light(50))


def test_on_a_real_redis(shared_redis: RedisServer) -> None:
    class OnRedis(Fleet):
        url = shared_redis.url

    run_state_machine_as_test(OnRedis, settings=light(20))
