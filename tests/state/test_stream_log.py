"""The log of a durable stream, on both stores: Redis refuses the past, and whatever nobody may write."""

import asyncio

import msgspec
import pytest

from proxy.errors import RequestError, StoreAway, WeirError
from proxy.events import Finish, TextDelta
from proxy.record import NOWHERE, Place, place_of
from proxy.state.sessions import SessionRef
from proxy.state.store import MOST_AT_ONCE
from proxy.state.stream_log import Append, Once, Outcome
from tests.batches import write
from tests.process import until
from tests.redis_server import RedisServer
from tests.state.replicas import Replica, about, texts
from tests.state.stores import Stores, stores_at

pytestmark = pytest.mark.anyio


@pytest.fixture
def a(stores: Stores) -> Replica:
    return Replica(stores, "a")


@pytest.fixture
def b(stores: Stores) -> Replica:
    return Replica(stores, "b")


async def left(replica: Replica, name: str) -> float:
    """Seconds that a key has to live; below 0 if there is none, or it lives for ever."""
    return float(await replica.store.client.ttl(name))


async def test_a_log_is_read_as_it_was_written(a: Replica, b: Replica) -> None:
    assert await a.begin("s") == "s"
    assert await a.say("s", 1, 2, "x", "y") is Outcome.LANDED
    assert await a.say("s", 1, 3, Finish()) is Outcome.LANDED
    assert await b.log("s") == [("1-0", ("a", 0)), ("1-2", "xy"), ("1-3", "<finish>")]
    assert [event.seq for entry in await b.whole("s") for event in entry.events] == [1, 2, 3]
    assert await b.logs.known("s") == ("o", about())


async def test_a_page_goes_on_after_an_entry(a: Replica) -> None:
    await a.begin("s")
    for seq in range(1, 6):
        await a.say("s", 1, seq, "x")
    pages, place = [], NOWHERE
    while page := await a.logs.page("s", place, 2):
        pages.append([str(entry.place) for entry in page])
        place = page[-1].place
    assert pages == [["1-0", "1-1"], ["1-2", "1-3"], ["1-4", "1-5"]]


async def test_many_are_written_at_once_and_each_has_its_own_outcome(a: Replica) -> None:
    await a.begin("s")
    await a.begin("t")
    await a.say("t", 1, 5, "x")
    batch = [Append(name, Place(1, seq), *write([TextDelta(content="y")])) for name, seq in _EACH]
    assert await a.logs.append(batch) == [Outcome.LANDED, Outcome.REFUSED, Outcome.GONE, Outcome.LANDED]
    tips = await a.logs.tips(["s", "t", "nowhere"])
    assert tips == [Place(1, 1), Place(1, 6), None], "the tips are not those of the logs"


_EACH = [("s", 1), ("t", 5), ("nowhere", 1), ("t", 6)]


async def test_the_same_again_and_the_past_are_refused(a: Replica) -> None:
    await a.begin("s")
    assert await a.say("s", 2, 7, "x") is Outcome.LANDED
    for epoch, seq in [(2, 7), (2, 6), (1, 100)]:
        assert await a.say("s", epoch, seq, "y") is Outcome.REFUSED, f"{epoch}-{seq} was taken after 2-7"
    assert (await a.log("s"))[1:] == [("2-7", "x")]


async def test_a_log_that_is_gone_does_not_come_back(a: Replica) -> None:
    await a.begin("s")
    await a.store.client.delete(a.logs.log("s"))
    assert await a.say("s", 1, 1, "x") is Outcome.GONE
    assert not await a.store.client.exists(a.logs.log("s")), "an append made a log"
    assert await a.logs.last("s") is None
    assert await a.logs.known("s") == ("o", None), "that there was one is not known"
    assert await a.logs.known("never") == (None, None)


async def test_the_last_entry_comes_with_the_beginning_of_its_epoch(a: Replica, b: Replica) -> None:
    await a.begin("s")
    last = await b.logs.last("s")
    assert last is not None
    assert (last[0].place, last[1].replica, last[0].ends) == (Place(1, 0), "a", False)
    await a.say("s", 1, 4, "x", Finish())
    last = await b.logs.last("s")
    assert last is not None
    assert (last[0].place, last[1].nonce, last[0].ends) == (Place(1, 4), "a1", True)


async def test_an_epoch_without_its_beginning_is_a_log_that_went_backwards(a: Replica) -> None:
    await a.begin("s")
    await a.say("s", 2, 1, "x")
    with pytest.raises(WeirError) as caught:
        await a.logs.last("s")
    assert (caught.value.status, caught.value.code) == (409, "log_regressed")


async def test_the_time_of_a_log_begins_to_run_when_it_ends(a: Replica) -> None:
    session = SessionRef("o", "talk")
    await a.begin("s", asked=b'{"model": "m"}', session=session)
    assert await a.logs.asked("s") == b'{"model": "m"}'
    assert await a.logs.answering(session) == "s"
    assert await left(a, a.logs.log("s")) > 1000, "a stream that runs for long is cut off"
    await a.logs.ended("s", "o", None, answered=True)
    assert 0 < await left(a, a.logs.log("s")) <= 60
    assert await left(a, a.store.key("stream", "s")) > 60, "that there was one is forgotten with it"
    assert await a.logs.asked("s") is None, "the request is kept, though nobody will ask it again"
    assert not await a.store.client.exists(a.logs.streams("a")), "it is still listed as running"


async def test_the_same_key_is_the_same_stream(a: Replica, b: Replica) -> None:
    once = Once("k", "digest")
    assert await a.begin("s", once) == "s"
    assert await b.begin("t", once) == "s"
    assert await b.logs.known("t") == (None, None), "the second one was made all the same"
    assert await b.begin("t", Once("another", "digest")) == "t"
    assert await b.begin("u", once, owner="somebody else") == "u", "a key is seen by others than its owner"


async def test_the_same_key_for_another_request_is_a_mistake(a: Replica) -> None:
    await a.begin("s", Once("k", "digest"))
    with pytest.raises(RequestError) as caught:
        await a.begin("t", Once("k", "other"))
    assert (caught.value.status, caught.value.code) == (422, "idempotency_key_reused")
    assert await a.logs.known("t") == (None, None)


async def test_of_many_at_once_under_one_key_one_begins(stores: Stores) -> None:
    many = [Replica(stores, f"r{number}") for number in range(8)]
    told = await asyncio.gather(*(it.begin(f"s-{it.name}", Once("k", "d")) for it in many))
    assert len(set(told)) == 1, f"one key, and streams {set(told)}"
    made = [it.name for it in many if (await it.logs.known(f"s-{it.name}"))[1] is not None]
    assert [f"s-{name}" for name in made] == [told[0]]


@pytest.mark.parametrize("answered", [True, False])
async def test_a_key_is_kept_as_long_as_there_is_an_answer(a: Replica, answered: bool) -> None:
    await a.begin("s", Once("k", "d"))
    await a.logs.ended("s", "o", "k", answered=answered)
    assert await a.begin("t", Once("k", "d")) == ("s" if answered else "t")
    if answered:
        assert 0 < await left(a, a.logs.once("o", "k")) <= 60, "the key outlives the answer"


async def test_news_are_what_comes_after_a_place(a: Replica, b: Replica) -> None:
    for name in ("s", "t", "u"):
        await a.begin(name)
        await a.say(name, 1, 1, name)
    news = await b.logs.news({"s": Place(1, 0), "t": NOWHERE, "u": Place(1, 1)})
    found = {name: [str(entry.place) for entry in entries] for name, entries in news.items()}
    assert found == {"s": ["1-1"], "t": ["1-0", "1-1"]}


async def test_who_waits_for_news_hears_them_at_once(a: Replica, b: Replica) -> None:
    await a.begin("s")
    waiting = asyncio.create_task(b.logs.news({"s": Place(1, 0)}))
    await until(lambda: not waiting.done(), "it waits")
    await a.say("s", 1, 1, "x")
    assert [texts(entry.events) for entry in (await waiting)["s"]] == ["x"]


async def test_a_wait_for_news_ends_by_itself(a: Replica, b: Replica) -> None:
    await a.begin("s")
    assert await b.logs.news({"s": Place(1, 0)}) == {}


async def test_a_wait_for_news_is_ended_by_a_word_of_ones_own(a: Replica, b: Replica) -> None:
    """So that it can be asked anew, about other streams."""
    await a.begin("s")
    loop = asyncio.get_running_loop()
    for _ in range(3):
        began = loop.time()
        waiting = asyncio.create_task(b.logs.news({"s": Place(1, 0)}))
        await asyncio.sleep(0)
        await b.logs.wake()
        assert await waiting == {}
        assert loop.time() - began < 0.8, "it waited for its time to be over"
    assert await left(b, b.store.key("wake", "b")) > 0, "who is gone leaves a key for ever"


async def test_what_a_newer_weir_wrote_concerns_its_own_log_alone(a: Replica, b: Replica) -> None:
    for name in ("s", "t"):
        await a.begin(name)
    await a.logs.append([Append("s", Place(1, 1), "m", b'[{"type": "song"}]')])
    await a.say("t", 1, 1, "x")
    news = await b.logs.news({"s": Place(1, 0), "t": Place(1, 0)})
    assert [texts(entry.events) for entry in news["t"]] == ["x"]
    with pytest.raises(msgspec.ValidationError):
        list(news["s"])


def test_a_place_is_its_id() -> None:
    assert place_of("2-17") == Place(2, 17)
    assert place_of(str(Place(10, 0))) == Place(10, 0)


# Redis away.


async def test_nobody_knows_what_became_of_a_batch_while_redis_is_away(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        replica = Replica(stores, "a")
        await replica.begin("s")
        redis_server.kill()
        assert await replica.say("s", 1, 1, "x") is Outcome.UNSURE
        for work in (replica.logs.tips(["s"]), replica.logs.news({"s": NOWHERE}), replica.logs.page("s", NOWHERE)):
            with pytest.raises(StoreAway):
                await work
        redis_server.start()
        assert await replica.logs.tips(["s"]) == [Place(1, 0)], "what was acknowledged is lost"
        assert await replica.say("s", 1, 1, "x") is Outcome.LANDED


async def test_a_batch_that_redis_has_no_memory_for_is_not_written(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        replica = Replica(stores, "a")
        await replica.begin("s")
        redis_server.command("CONFIG", "SET", "maxmemory", "1")
        assert await replica.say("s", 1, 1, "x") is Outcome.UNSURE
        assert await replica.logs.tips(["s"]) == [Place(1, 0)]
        redis_server.command("CONFIG", "SET", "maxmemory", "0")
        assert await replica.say("s", 1, 1, "x") is Outcome.LANDED


async def test_a_redis_that_became_a_replica_is_left(redis_server: RedisServer) -> None:
    """Its name may lead to another one by now, so each attempt asks who that is."""
    with RedisServer() as other:
        async with stores_at(redis_server.url) as stores:
            replica = Replica(stores, "a")
            await replica.begin("s")
            assert await replica.say("s", 1, 1, "x") is Outcome.LANDED
            redis_server.command("REPLICAOF", "127.0.0.1", str(other.port))
            before = _connections(redis_server)
            for _ in range(3):
                assert await replica.say("s", 1, 2, "y") is Outcome.UNSURE
            made = _connections(redis_server) - before - 1  # that one asks
            assert made == 2, "it goes on asking the old one, over the old connection"


def _connections(server: RedisServer) -> int:
    """How many were ever made to it."""
    return int(server.command("INFO", "stats").partition("total_connections_received:")[2].split("\r")[0])


async def test_the_writer_and_the_listener_wait_for_nobody_else(redis_server: RedisServer) -> None:
    """A reader who is cancelled, or a read that blocks, must not get in the way of the writer."""
    async with stores_at(redis_server.url) as stores:
        replica = Replica(stores, "a")
        await replica.begin("s")
        waiting = asyncio.create_task(replica.logs.news({"s": Place(1, 1)}))
        await until(lambda: "xread" in redis_server.command("CLIENT", "LIST"), "it waits")
        assert await replica.say("s", 1, 1, "x") is Outcome.LANDED
        assert not waiting.done()
        await waiting


async def begun_at_once(url: str, count: int, *, once: bool) -> int:
    """How many connections are open after so many streams have begun at once, with the one that asks."""
    async with stores_at(url) as stores:
        a = Replica(stores, "a")
        names = [f"s{number}" for number in range(count)]
        assert await asyncio.gather(*(a.begin(name, Once(name, "d") if once else None) for name in names)) == names
        return int((await a.store.client.info("clients"))["connected_clients"])


async def test_many_that_begin_at_once_share_a_connection(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for each would take so long to open that Redis is taken to be away."""
    monkeypatch.setattr("proxy.state.store.PATIENCE", 5.0)
    assert await begun_at_once(redis_server.url, 200, once=False) == 2


async def test_many_that_look_at_a_key_first_take_turns(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.state.store.PATIENCE", 5.0)
    connected = await begun_at_once(redis_server.url, 200, once=True)
    assert connected <= MOST_AT_ONCE + 1, f"{connected} connections were opened"
