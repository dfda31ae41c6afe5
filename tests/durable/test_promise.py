"""Whatever happens, in whatever order: what a client got is a prefix of the log, and no epoch falls."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import booleans, integers, sampled_from

from proxy.durable.feeds import Feeds
from proxy.durable.log import StreamLog
from proxy.durable.reader import Reader
from proxy.durable.writer import Writer
from proxy.errors import StoreAway
from proxy.events import Finish, Recovered, TextDelta
from proxy.position import read_position
from proxy.record import NOWHERE, Opening
from proxy.tasks import end
from tests.process import until
from tests.redis_server import RedisServer
from tests.state.replicas import Replica, about, texts
from tests.state.stores import Stores

NAMES = "abc"
LAST = 12  # no event comes after this many, so that an example ends


class House(Replica):
    """A replica that may produce and be read; what it produces it never learns from Redis alone."""

    def __init__(self, stores: Stores, name: str):
        super().__init__(stores, name)
        self.feeds = Feeds(self.logs)
        self.writer = Writer(self.logs)
        self.written: StreamLog | None = None
        self.lives = True
        self._tasks = [asyncio.create_task(self.writer.run()), asyncio.create_task(self.feeds.run())]

    def produce(self, epoch: int, opening: Opening) -> None:
        self.written = StreamLog("s", about(), epoch, opening, wake=self.writer.wake, cap=10**6)
        self.feeds.begin("s", self.written.feed)

    async def notice(self) -> None:
        """That what it produced is another's: Redis refused it, or the first beat after a sleep has a look."""
        last = await self.patiently(lambda: self.logs.last("s"))
        if self.written is not None and last[0].place.epoch > self.written.epoch:
            self.written.lose(None)
        if self.written is not None and self.written.finished.done():
            self.feeds.over("s", self.written.feed)
            self.written = None

    async def patiently(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """What `work` gives, once Redis answers in time: the machine may be busy, or Redis about to come back."""

        async def tried() -> list[Any]:
            self.store.back()
            try:
                return [await work()]
            except StoreAway:
                return []

        return (await until(tried, "Redis answers"))[0]

    async def lose_lease(self) -> None:
        await self.patiently(self.orphanage.release)

    async def close(self) -> None:
        """kill -9, or the end of the test."""
        self.lives = False
        await end(*self._tasks)


class Client:
    """Reads the stream, is cut off, and comes back with the last position it saw, on any replica."""

    def __init__(self) -> None:
        self.position = "0"
        self.got: list[str] = []

    async def read(self, replica: House, most: int) -> None:
        """Until it has so many more events, or has seen the end; it is cut off then."""
        after = read_position(self.position)
        reader = Reader("s", about(), replica.logs, replica.feeds, "r", after)
        async with reader.events() as events:
            async for event in events:
                if event.seq > after.seq:
                    self.got.append(f"{event.seq}:{texts([event])}")
                    self.position = reader.position
                    most -= 1
                if not most:
                    return


class Fleet(RuleBasedStateMachine):
    """One stream, three replicas, two clients. Who sleeps goes on writing, and does not know that its lease is gone."""

    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._stores = Stores(self.server.url)
        self._clients = [Client(), Client()]
        self._words = 0
        self._nonces = itertools.count(1).__next__
        self._restarts = 0
        self._log: list[str] = []  # as it was when it was last looked at
        self._tip = NOWHERE
        self._acknowledged: list[str] = []

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    @initialize()
    def begins(self) -> None:
        async def begin() -> None:
            self._houses = {name: House(self._stores, name) for name in NAMES}
            first, opening = self._houses["a"], Opening(nonce="a0000000", replica="a")
            await first.logs.begin("s", about(), opening, asked=None, once=None)
            first.produce(1, opening)

        self.run(begin())

    def teardown(self) -> None:
        async def end_of_it() -> None:
            try:
                for client in self._clients:
                    await self._read(client, self._alive()[0], 10 * LAST)
                    assert client.got == self._log, "who reads to the end has not all of the log"
            finally:
                for house in self._alive():
                    await house.close()
                await self._stores.close()

        self.run(end_of_it())
        self._runner.close()

    @rule(name=sampled_from(NAMES), count=integers(1, 3), ends=integers(0, 9))
    def append(self, name: str, count: int, ends: int) -> None:
        if house := self._producing(name):
            self._say(house, count)
            if not ends:
                assert house.written is not None
                house.written.add(Finish())
            self.run(self._settled(house))

    @rule(name=sampled_from(NAMES), count=integers(1, 3), who=integers(0, 1), where=sampled_from(NAMES))
    def append_while_somebody_reads(self, name: str, count: int, who: int, where: str) -> None:
        async def both() -> None:
            house, at = self._producing(name), self._houses[where]
            if house is None or not at.lives:
                return
            reading = asyncio.create_task(self._clients[who].read(at, LAST))
            await asyncio.sleep(0.002)
            self._say(house, count)
            await self._settled(house)
            await self._cut(reading, self._clients[who], LAST)

        self.run(both())

    @rule(who=integers(0, 1), where=sampled_from(NAMES), most=integers(1, 4))
    def resume(self, who: int, where: str, most: int) -> None:
        if self._houses[where].lives:
            self.run(self._read(self._clients[who], self._houses[where], most))

    @rule(name=sampled_from(NAMES))
    def fall_asleep(self, name: str) -> None:
        self.run(self._houses[name].lose_lease())

    @precondition(lambda self: len(self._alive()) > 1)
    @rule(name=sampled_from(NAMES), speaking=booleans())
    def kill(self, name: str, speaking: bool) -> None:
        """With something on its way, or not."""

        async def killed() -> None:
            house = self._houses[name]
            if speaking and self._producing(name):
                self._say(house, 2)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            await house.close()
            await house.lose_lease()

        if self._houses[name].lives:
            self.run(killed())

    @rule(names=sampled_from(["a", "b", "c", "ab", "bc", "ca"]))
    def adopt(self, names: str) -> None:
        """One that looks for orphans, or two at once."""

        async def adopted() -> None:
            one = self._houses[names[0]]
            await one.patiently(lambda: one.store.attempt("x", one.store.client.delete(one.store.key("adopt", "s"))))
            await asyncio.gather(*(self._adopt(self._houses[name]) for name in names if self._houses[name].lives))

        self.run(adopted())

    @precondition(lambda self: self._restarts < 2)
    @rule(name=sampled_from(NAMES), count=integers(0, 2))
    def restart_redis(self, name: str, count: int) -> None:
        """kill -9, with something on its way."""

        async def restarted() -> None:
            self._restarts += 1
            if house := self._producing(name):
                self._say(house, count)
                await asyncio.sleep(0.001)
            self.server.kill()
            await asyncio.sleep(0.02)
            self.server.start()
            for each in self._alive():
                each.store.back()
                await self._settled(each)

        self.run(restarted())

    @invariant()
    def the_promise_holds(self) -> None:
        entries = self.run(self._stores_log())
        places = [entry.place for entry in entries]
        events = [event for entry in entries for event in entry.events]
        log = [f"{event.seq}:{texts([event])}" for event in events]
        assert places == sorted(set(places)), f"epochs fall: {places}"
        assert [event.seq for event in events] == list(range(1, len(events) + 1)), f"a position is missing: {log}"
        assert log[: len(self._log)] == self._log, f"what was there has changed: {self._log} was {log}"
        for client in self._clients:
            assert client.got == log[: len(client.got)], f"a client got {client.got}, and the log is {log}"
        said = [event.content for event in events if isinstance(event, TextDelta)]
        assert len(said) == len(set(said)), f"something was said twice: {said}"
        assert set(self._acknowledged) <= set(said), f"acknowledged and lost: {set(self._acknowledged) - set(said)}"
        self._log, self._tip = log, places[-1] if places else NOWHERE

    async def _stores_log(self) -> Any:
        house = self._alive()[0]
        return await house.patiently(lambda: house.whole("s"))

    def _alive(self) -> list[House]:
        return [house for house in self._houses.values() if house.lives]

    def _producing(self, name: str) -> House | None:
        house = self._houses[name]
        writes = house.lives and house.written is not None and not house.written.is_closed
        return house if writes and len(self._log) < LAST else None

    def _say(self, house: House, count: int) -> None:
        assert house.written is not None
        for _ in range(count):
            self._words += 1
            house.written.add(TextDelta(content=f"{house.name}{self._words}"))

    async def _settled(self, house: House) -> None:
        """All that it had to say is in the log, or will never be."""
        written, said = house.written, f"{house.name} is heard"
        if written is None:
            return
        before = self._words
        await until(lambda: written.lost or written.acknowledged == written.seq, said)
        kept = [entry for entry in written.feed.since(written.feed._base) or () if entry.events]
        self._acknowledged += [it.content for entry in kept for it in entry.events if isinstance(it, TextDelta)]
        assert self._words == before
        await house.notice()

    async def _adopt(self, house: House) -> None:
        for producer, stream_id in await house.patiently(house.orphanage.find):
            if house.written is not None:
                continue
            adopted = None
            with contextlib.suppress(StoreAway):  # it may have been taken over, and is found again
                adopted = await house.orphanage.adopt(stream_id, producer, f"{house.name}{self._nonces():07}")
            if adopted is not None:
                house.produce(*adopted)
                assert house.written is not None
                house.written.add(Recovered(how="restarted", after=0))
                await self._settled(house)

    async def _read(self, client: Client, house: House, most: int) -> None:
        await self._cut(asyncio.create_task(client.read(house, most)), client, most)

    async def _cut(self, reading: asyncio.Task[None], client: Client, most: int) -> None:
        """Ends the reading once all that is there has been read."""
        there, goal = len(await self._stores_log_events()), len(client.got) + most

        async def is_over() -> bool:
            for house in self._alive():  # what happens in each beat
                house.store.back()
                await house.notice()
            return reading.done() or len(client.got) >= min(there, goal)

        try:
            await until(is_over, "all of it is read")
        finally:
            await end(reading)
        if not reading.cancelled():
            reading.result()

    async def _stores_log_events(self) -> list[Any]:
        return [event for entry in await self._stores_log() for event in entry.events]


def test_what_a_client_got_is_a_prefix_of_the_log() -> None:
    with RedisServer() as server:
        Fleet.server = server
        run_state_machine_as_test(
            Fleet,
            settings=settings(
                max_examples=25,
                stateful_step_count=20,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
