"""Group commit: what many streams say leaves together; what nobody heard of is looked for before it is sent again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest

from proxy.durable.feed import PATIENCE
from proxy.durable.log import TAKEN_OVER, StreamLog
from proxy.durable.writer import Writer
from proxy.errors import StoreAway
from proxy.events import Finish
from proxy.record import Place, read
from proxy.state.stream_log import Append, LogStore, Outcome
from proxy.tasks import end
from tests.durable.logs import add, log_of
from tests.journeys import idle, skip
from tests.process import until
from tests.redis_server import RedisServer
from tests.state.replicas import Replica, texts
from tests.state.stores import Stores, stores_at

pytestmark = pytest.mark.anyio

LANDED, UNSURE, REFUSED = Outcome.LANDED, Outcome.UNSURE, Outcome.REFUSED


class ScriptedRedis:
    """Answers a batch when the test says so. `sent`: the batches, what each of them says of which stream.

    `refused` are streams of which it takes nothing; a `prompt` one does not wait for the test.
    """

    def __init__(self) -> None:
        self.sent: list[dict[str, str]] = []
        self.appends: list[Sequence[Append]] = []
        self.tip: dict[str, Place | None] = {}
        self.refused: set[str] = set()
        self.prompt = False
        self.looks = 0
        self.away = False
        self._reply: asyncio.Future[Outcome] | None = None

    async def append(self, batch: Sequence[Append]) -> list[Outcome]:
        self.appends.append(batch)
        self.sent.append({it.stream_id: texts(read(it.source, it.array, it.place.seq)) for it in batch})
        assert len(self.sent[-1]) == len(batch), "two entries of one stream in a batch"
        if self.away:
            return [UNSURE] * len(batch)
        self._reply = asyncio.get_running_loop().create_future()
        outcome = LANDED if self.prompt else await self._reply
        return [REFUSED if it.stream_id in self.refused else outcome for it in batch]

    async def tips(self, stream_ids: Sequence[str]) -> list[Place | None]:
        self.looks += 1
        if self.away:
            raise StoreAway("x")
        return [self.tip.get(stream_id, Place(1, 0)) for stream_id in stream_ids]

    async def answer(self, outcome: Outcome = LANDED) -> None:
        await until(lambda: self._reply is not None, "there is something to answer")
        assert self._reply is not None
        self._reply.set_result(outcome)
        self._reply = None
        await idle()


@asynccontextmanager
async def writing(logs: Any) -> AsyncIterator[Writer]:
    writer = Writer(cast(LogStore, logs))
    running = asyncio.create_task(writer.run())
    try:
        yield writer
        assert not running.done(), f"the writer died: {running}"
    finally:
        await end(running)


async def test_a_lonely_event_waits_for_nobody() -> None:
    redis = ScriptedRedis()
    async with writing(redis) as writer:
        add(log_of("s", wake=writer.wake), "x")
        await idle()
        assert redis.sent == [{"s": "x"}]
        await redis.answer()
        assert redis.sent == [{"s": "x"}]


async def test_what_comes_meanwhile_is_the_next_batch() -> None:
    redis = ScriptedRedis()
    async with writing(redis) as writer:
        one, two, three = (log_of(name, wake=writer.wake) for name in "stu")
        add(one, "a")
        await idle()
        add(one, "b", "c")
        add(two, "d")
        add(one, "e")
        add(three, "f")
        await idle()
        assert len(redis.sent) == 1, "a second one left before the first was acknowledged"
        await redis.answer()
        await redis.answer()
        assert redis.sent[1:] == [{"s": "bce", "t": "d", "u": "f"}]


async def test_a_stream_that_says_nothing_is_not_in_a_batch() -> None:
    redis = ScriptedRedis()
    async with writing(redis) as writer:
        log = log_of("s", wake=writer.wake)
        writer.wake(log)
        await idle()
        assert redis.sent == []


@pytest.mark.parametrize("outcome", [UNSURE, REFUSED])
@pytest.mark.parametrize("arrived", [True, False])
async def test_what_nobody_heard_of_is_looked_for(outcome: Outcome, arrived: bool) -> None:
    redis = ScriptedRedis()
    async with writing(redis) as writer:
        log = log_of("s", wake=writer.wake)
        add(log, "x")
        redis.tip["s"] = Place(1, 1) if arrived else Place(1, 0)
        await redis.answer(outcome)
        await until(lambda: redis.looks, "it looks")
        if not arrived:
            await until(lambda: len(redis.sent) == 2, "it is sent again")
            assert redis.appends[0] == redis.appends[1], "it is sent again otherwise than before"
            await redis.answer()
        await until(lambda: log.acknowledged == 1, "it is there")
        assert len(redis.sent) == (1 if arrived else 2)


async def test_one_that_is_unclear_does_not_hold_up_the_others() -> None:
    redis = ScriptedRedis()
    async with writing(redis) as writer:
        odd, sound = log_of("s", wake=writer.wake), log_of("t", wake=writer.wake)
        redis.refused.add("s")
        redis.prompt = True
        add(odd, "x")
        for seq, word in enumerate("abc", 1):
            add(sound, word)
            await until(partial(_has, sound, seq), f"{word} is there")
        assert odd.acknowledged == 0


def _has(log: StreamLog, seq: int) -> bool:
    return log.acknowledged == seq


async def test_redis_away_for_too_long_ends_a_stream() -> None:
    redis = ScriptedRedis()
    redis.away = True
    stopped: list[str] = []
    async with writing(redis) as writer:
        log = log_of("s", wake=writer.wake)
        log.stop = stopped.append
        add(log, "x")
        await until(lambda: log.unsure, "it is unclear")
        skip(PATIENCE - 1)
        looks = redis.looks
        await until(lambda: redis.looks > looks, "it tries on")
        assert log.feed.failed is None, "it is given up too early"
        skip(1)
        await until(lambda: log.feed.failed, "its readers are told")
        assert isinstance(log.feed.failed, StoreAway)
        assert len(stopped) == 1, "its provider is asked on, or it is stopped again and again"
        redis.away = False
        redis.tip["s"] = Place(1, 1)
        await until(lambda: len(redis.sent) == 2, "its end is written once that is possible")
        await redis.answer()
        assert redis.sent[-1] == {"s": "<error>"}
        assert log.finished.done()


async def test_while_redis_is_away_it_is_not_asked_without_a_pause() -> None:
    redis = ScriptedRedis()
    redis.away = True
    async with writing(redis) as writer:
        add(log_of("s", wake=writer.wake), "x")
        await until(lambda: redis.looks == 1, "it looks")
        await idle()
        assert (redis.looks, len(redis.sent)) == (1, 1), "it asks all the time"


# On a real server.


class House:
    """A replica that writes to the log `s`."""

    def __init__(self, stores: Stores, writer: Writer, replica: Replica):
        self.stores = stores
        self.replica = replica
        self.log = log_of("s", wake=writer.wake)

    async def says(self, *words: Any) -> None:
        """Until it is acknowledged."""
        add(self.log, *words)
        await until(lambda: self.log.acknowledged == self.log.seq, f"{words} is acknowledged")

    async def written(self) -> str:
        return "".join(text for _, text in (await self.replica.log("s"))[1:])


@asynccontextmanager
async def house(url: str | None) -> AsyncIterator[House]:
    async with stores_at(url) as stores:
        replica = Replica(stores, "a")
        await replica.begin("s")
        async with writing(replica.logs) as writer:
            yield House(stores, writer, replica)


async def test_a_redis_that_comes_back_in_time_is_gone_on_with() -> None:
    with RedisServer() as server:
        async with house(server.url) as a:
            await a.says("x")
            server.kill()
            add(a.log, "y")
            await until(lambda: a.log.unsure, "it is unclear")
            add(a.log, "z")
            server.start()
            a.replica.store.back()
            await a.says(Finish())
            assert await a.written() == "xyz<finish>"


async def test_a_redis_that_is_slow_gets_nothing_twice() -> None:
    """The batch lies in its socket while it hangs, and lands when nobody waits for it any more."""
    with RedisServer() as server:
        async with house(server.url) as a:
            await a.says("x")
            server.pause()
            try:
                add(a.log, "y")
                await until(lambda: a.log.unsure, "it is unclear")
                add(a.log, "z")
            finally:
                server.resume()
            await a.says(Finish())
            a.replica.store.back()
            assert await a.written() == "xyz<finish>"


@pytest.mark.parametrize(
    ("breaks", "mends"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    ],
    ids=["OOM", "READONLY"],
)
async def test_a_redis_that_takes_nothing_is_asked_again(breaks: tuple[str, ...], mends: tuple[str, ...]) -> None:
    with RedisServer() as server:
        async with house(server.url) as a:
            await a.says("x")
            server.command(*breaks)
            add(a.log, "y")
            await until(lambda: a.log.unsure, "it is unclear")
            assert a.log.feed.failed is None
            server.command(*mends)
            await a.says("z")
            assert await a.written() == "xyz"


def stopped(log: StreamLog) -> list[str]:
    why: list[str] = []
    log.stop = why.append
    return why


async def test_whoever_was_taken_over_writes_nothing_more() -> None:
    async with house(None) as a:
        b, why = Replica(a.stores, "b"), stopped(a.log)
        await a.says("x")
        await a.replica.die()
        assert await b.adopt("s", "a") is not None
        add(a.log, "y")
        await until(lambda: a.log.lost, "it hears of it")
        assert why == [TAKEN_OVER]
        assert await b.log("s") == [("1-0", ("a", 0)), ("1-1", "x"), ("2-0", ("b", 1))]


async def test_a_log_that_is_gone_ends_its_stream() -> None:
    async with house(None) as a:
        why = stopped(a.log)
        await a.says("x")
        await a.replica.store.client.delete(a.replica.logs.log("s"))
        add(a.log, "y")
        await until(lambda: a.log.lost, "it hears of it")
        assert len(why) == 1
        assert a.log.feed.failed is not None
        assert a.log.feed.failed.code == "stream_gone"


async def test_a_log_that_went_backwards_ends_its_stream() -> None:
    """The connection broke, and it is another Redis that answers now: one that has not seen all of it."""
    async with house(None) as a:
        await a.says("x")
        await a.says("y")
        await a.replica.store.client.xdel(a.replica.logs.log("s"), "1-2")
        append = a.replica.logs.append

        async def broken(batch: Sequence[Append]) -> list[Outcome]:
            a.replica.logs.append = append  # type: ignore[method-assign]
            return [UNSURE] * len(batch)

        a.replica.logs.append = broken  # type: ignore[method-assign]
        add(a.log, "z")
        await until(lambda: a.log.lost, "it hears of it")
        assert a.log.feed.failed is not None
        assert a.log.feed.failed.code == "log_regressed"
        assert await a.written() == "x", "it writes on, with a gap"


async def test_a_bug_in_the_middle_of_a_batch_ends_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """One task writes for all of them."""
    redis = ScriptedRedis()
    redis.prompt, append = True, redis.append

    async def broken(batch: Sequence[Append]) -> list[Outcome]:
        monkeypatch.setattr(redis, "append", append)
        raise ZeroDivisionError

    monkeypatch.setattr(redis, "append", broken)
    async with writing(redis) as writer:
        log = log_of(wake=writer.wake)
        add(log, "a")
        await until(lambda: log.acknowledged == 1, "the next attempt")
