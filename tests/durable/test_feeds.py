"""Where readers are fed from: this replica's own streams, and those of others, for which one read waits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.durable.feed import PATIENCE, Feed
from proxy.durable.feeds import Feeds
from proxy.errors import Stopped, StoreAway
from proxy.events import Finish
from proxy.record import NOWHERE, Place
from proxy.state.stream_log import Append
from proxy.tasks import end
from tests.durable.logs import told
from tests.journeys import idle, skip
from tests.process import until
from tests.redis_server import RedisServer
from tests.state.replicas import Replica
from tests.state.stores import stores_at

pytestmark = pytest.mark.anyio


class House:
    """A replica `a` that produces, and the feeds of `b`, where it is read."""

    def __init__(self, a: Replica, b: Replica):
        self.a = a
        self.b = b
        self.feeds = Feeds(b.logs)
        self.reads = 0

    def count_reads(self) -> None:
        news = self.b.logs.news

        async def counted(after: Any) -> Any:
            self.reads += 1
            return await news(after)

        self.b.logs.news = counted  # type: ignore[method-assign]


@asynccontextmanager
async def house(url: str | None = None) -> AsyncIterator[House]:
    async with stores_at(url) as stores:
        found = House(Replica(stores, "a"), Replica(stores, "b"))
        found.count_reads()
        running = asyncio.create_task(found.feeds.run())
        try:
            yield found
            assert not running.done(), f"the feeds died: {running}"
        finally:
            await end(running)


@pytest.fixture(params=["embedded", "redis"])
def url(request: pytest.FixtureRequest) -> Any:
    if request.param == "embedded":
        yield None
        return
    with RedisServer(appendonly="no") as server:
        yield server.url


def has(feed: Feed, *texts: str) -> Callable[[], bool]:
    return lambda: told(feed.since(Place(1, 0))) == list(texts)


async def test_what_another_replica_writes_arrives(url: str | None) -> None:
    async with house(url) as here:
        await here.a.begin("s")
        await here.a.say("s", 1, 1, "x")
        feed = here.feeds.follow("s", Place(1, 0))
        await until(has(feed, "x"), "what was there arrives")
        await here.a.say("s", 1, 3, "y", "z")
        await here.a.say("s", 1, 4, Finish())
        await until(has(feed, "x", "yz", "<finish>"), "what comes arrives")
        assert feed.ended
        assert here.feeds.followed == {}, "what has ended is waited for"


async def test_a_stream_that_is_followed_from_now_on_is_heard_of_at_once(url: str | None) -> None:
    """The read that is waiting does not know of it: it is ended, and asked anew."""
    async with house(url) as here:
        await here.a.begin("s")
        await here.a.begin("t")
        here.feeds.follow("s", Place(1, 0))
        await until(lambda: here.reads, "it waits for the first one")
        began = asyncio.get_running_loop().time()
        other = here.feeds.follow("t", Place(1, 0))
        await here.a.say("t", 1, 1, "x")
        await until(has(other, "x"), "the second one is heard of")
        assert asyncio.get_running_loop().time() - began < 0.8, "only once the first read was over"


async def test_one_read_waits_for_all() -> None:
    async with house() as here:
        names = [f"s{number}" for number in range(20)]
        for name in names:
            await here.a.begin(name)
            await here.a.say(name, 1, 1, name)
        feeds = [here.feeds.follow(name, Place(1, 0)) for name in names]
        await until(lambda: all(has(feed, name)() for feed, name in zip(feeds, names, strict=True)), "all are heard of")
        assert here.reads <= 3, f"{here.reads} reads for {len(names)} streams"


async def test_readers_share_a_feed_while_there_are_any() -> None:
    async with house() as here:
        await here.a.begin("s")
        assert here.feeds.find("s") is None
        feed = here.feeds.follow("s", Place(1, 0))
        assert here.feeds.find("s") is feed
        here.feeds.detach("s", feed)
        assert here.feeds.followed == {"s": feed}, "it is no longer filled, though somebody reads it"
        here.feeds.detach("s", feed)
        assert (here.feeds.find("s"), here.feeds.followed) == (None, {}), "it is filled for nobody"


async def test_of_ones_own_streams_the_writer_knows() -> None:
    async with house() as here:
        feed = Feed(NOWHERE)
        here.feeds.begin("s", feed)
        assert here.feeds.find("s") is feed
        here.feeds.detach("s", feed)
        assert here.feeds.find("s") is feed, "it is gone with its last reader"
        assert here.feeds.followed == {}, "what is written here is read from Redis"
        feed.ended = True
        here.feeds.over("s", feed)
        assert here.feeds.find("s") is None
        assert not feed.retired, "who reads it has all of it there"


async def test_a_stream_that_is_taken_over_here_has_another_feed() -> None:
    async with house() as here:
        await here.a.begin("s")
        followed = here.feeds.follow("s", Place(1, 0))
        own = Feed(Place(2, 0))
        here.feeds.begin("s", own)
        assert followed.retired, "its readers wait for what will never come"
        assert here.feeds.find("s") is own
        here.feeds.detach("s", followed)
        assert here.feeds.find("s") is own


async def test_a_stream_that_was_lost_is_looked_for_elsewhere() -> None:
    async with house() as here:
        own = Feed(NOWHERE)
        here.feeds.begin("s", own)
        here.feeds.over("s", own)
        assert own.retired
        assert here.feeds.find("s") is None
        await here.a.begin("s")
        await here.a.say("s", 1, 1, "x")
        feed = here.feeds.follow("s", Place(1, 0))
        await until(has(feed, "x"), "it is followed like another's")


async def test_who_reads_here_is_told_when_this_replica_goes() -> None:
    async with house() as here:
        await here.a.begin("s")
        own, other = Feed(NOWHERE), here.feeds.follow("s", Place(1, 0))
        here.feeds.begin("t", own)
        here.feeds.close(Stopped("bye"))
        assert isinstance(other.failed, Stopped)
        assert own.failed is None, "what ends by itself is cut off"
        late = here.feeds.follow("u", Place(1, 0))
        assert isinstance(late.failed, Stopped), "who was busy meanwhile waits for what nobody reads any more"


async def test_what_a_newer_weir_wrote_fails_alone() -> None:
    async with house() as here:
        for name in ("s", "t"):
            await here.a.begin(name)
        odd, sound = (here.feeds.follow(name, Place(1, 0)) for name in ("s", "t"))
        await here.a.logs.append([Append("s", Place(1, 1), "m", b'[{"type": "song"}]')])
        await here.a.say("t", 1, 1, "x")
        await until(has(sound, "x"), "the other one goes on")
        await until(lambda: odd.failed, "its readers are told")
        assert "t" in here.feeds.followed


async def test_a_redis_that_comes_back_in_time_is_gone_on_with() -> None:
    with RedisServer() as server:
        async with house(server.url) as here:
            await here.a.begin("s")
            feed = here.feeds.follow("s", Place(1, 0))
            await until(lambda: here.reads, "it waits")
            server.kill()
            await until(lambda: here.reads > 2, "it tries again")
            skip(PATIENCE - 2)
            server.start()
            await here.a.say("s", 1, 1, "x")
            await until(has(feed, "x"), "what comes arrives")
            assert feed.failed is None


async def test_a_redis_that_stays_away_is_told_of() -> None:
    with RedisServer() as server:
        async with house(server.url) as here:
            await here.a.begin("s")
            feed = here.feeds.follow("s", Place(1, 0))
            await until(lambda: here.reads, "it waits")
            server.kill()
            await until(lambda: here.reads > 2, "it tries again")
            assert feed.failed is None, "it is given up too early"
            skip(PATIENCE)
            await until(lambda: feed.failed, "its readers are told")
            assert isinstance(feed.failed, StoreAway)
            server.start()
            await here.a.say("s", 1, 1, "x")
            later = here.feeds.follow("s", Place(1, 0))
            await until(has(later, "x"), "the next one is fed again")


async def test_how_long_redis_is_away_is_counted_while_somebody_reads() -> None:
    """Those who come after hours, and meet one more hiccup, wait for it as long as anybody."""
    async with house() as here:
        await here.a.begin("s")

        async def away(after: Any) -> Any:
            here.reads += 1
            raise StoreAway("a durable stream")

        here.b.logs.news = away  # type: ignore[method-assign]
        feed = here.feeds.follow("s", Place(1, 0))
        await until(lambda: here.reads, "it tries")
        here.feeds.detach("s", feed)
        skip(PATIENCE)
        await idle()
        tried = here.reads
        later = here.feeds.follow("s", Place(1, 0))
        await until(lambda: here.reads > tried, "it tries again")
        assert later.failed is None, "it is given up at once"
