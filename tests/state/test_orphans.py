"""Streams whose producer has died: they are found, and exactly one replica takes each over, whoever still writes."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from proxy.errors import StoreAway
from proxy.events import Error, Finish, Recovered
from proxy.record import Entry, Opening, Place
from proxy.state.line import Words
from proxy.state.orphans import CLAIM, WATCHED, Adopted, Orphanage
from proxy.state.stream_log import LEASE, Append, Once, Outcome
from tests.redis_server import RedisServer
from tests.state.replicas import Replica, texts
from tests.state.stores import Stores, stores_at

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no Redis that is away."""
    monkeypatch.setattr("proxy.state.store.PATIENCE", 5.0)


@pytest.fixture
def a(stores: Stores) -> Replica:
    """The producer."""
    return Replica(stores, "a")


@pytest.fixture
def b(stores: Stores) -> Replica:
    return Replica(stores, "b")


@pytest.fixture
def c(stores: Stores) -> Replica:
    return Replica(stores, "c")


async def listed(replica: Replica, producer: str) -> set[str]:
    found: set[str] = await replica.store.client.smembers(replica.logs.streams(producer))
    return found


async def forget_the_claim(replica: Replica, stream_id: str) -> None:
    """As if its time were over."""
    await replica.store.client.delete(replica.store.key("adopt", stream_id))


async def test_what_lives_is_nobodys_to_take(a: Replica, b: Replica) -> None:
    await a.begin("s")
    assert await b.orphanage.lives("a")
    assert await b.orphanage.find() == []
    assert await b.adopt("s", "a") is None
    assert await a.say("s", 1, 1, "x") is Outcome.LANDED
    assert await listed(b, "a") == {"s"}


async def test_what_a_dead_one_left_is_found_and_taken_over(a: Replica, b: Replica, c: Replica) -> None:
    await a.begin("s")
    await a.say("s", 1, 2, "x", "y")
    await a.die()
    assert await b.orphanage.find() == [("a", "s")]
    adopted = await b.adopt("s", "a")
    assert adopted == Adopted(2, Opening(nonce="b2", replica="b", after=2, recoveries=1))
    assert await b.log("s") == [("1-0", ("a", 0)), ("1-2", "xy"), ("2-0", ("b", 2))]
    assert await b.orphanage.lives("b"), "who takes over shows no sign of life, and is taken for dead itself"
    assert await c.orphanage.find() == []
    assert await c.adopt("s", "a") is None, "it was taken over twice"
    assert (await listed(b, "a"), await listed(b, "b")) == (set(), {"s"})


async def test_whoever_only_slept_finds_its_words_refused(a: Replica, b: Replica) -> None:
    await a.begin("s")
    await a.say("s", 1, 1, "x")
    await a.die()
    assert await b.adopt("s", "a") is not None
    assert await a.say("s", 1, 2, "y") is Outcome.REFUSED
    assert await a.logs.tips(["s"]) == [Place(2, 0)], "it does not learn why"
    await a.orphanage.renew([])
    assert await a.orphanage.find() == [], "it takes back what is another's"
    assert await a.adopt("s", "b") is None
    assert await b.say("s", 2, 2, "z") is Outcome.LANDED


async def test_who_takes_over_before_its_first_word_goes_on_after_the_same_event(
    a: Replica, b: Replica, c: Replica
) -> None:
    await a.begin("s")
    await a.say("s", 1, 3, "x", "y", "z")
    await a.die()
    await b.adopt("s", "a")
    await b.die()
    await forget_the_claim(c, "s")
    assert await c.orphanage.find() == [("b", "s")]
    adopted = await c.adopt("s", "b")
    assert adopted == Adopted(3, Opening(nonce="c2", replica="c", after=3, recoveries=2))
    assert (await c.log("s"))[2:] == [("2-0", ("b", 3)), ("3-0", ("c", 3))]


async def test_what_was_claimed_is_left_alone_for_a_while(a: Replica, b: Replica, c: Replica) -> None:
    """Its adopter died between its claim and its first word."""
    await a.begin("s")
    await a.die()
    claim = b.store.key("adopt", "s")
    await b.store.client.set(claim, "b", px=int(CLAIM * 1000))
    assert await c.adopt("s", "a") is None
    assert await c.log("s") == [("1-0", ("a", 0))]
    await forget_the_claim(c, "s")
    assert await c.adopt("s", "a") is not None
    assert 0 < await c.store.client.pttl(claim) <= CLAIM * 1000, "a claim whose owner died holds for ever"


async def test_what_a_producer_does_not_know_of_it_takes_over_itself(a: Replica) -> None:
    """It began, or was taken over, and the reply was lost."""
    await a.begin("s")
    assert await a.orphanage.find() == [("a", "s")]
    assert await a.adopt("s", "a") == Adopted(2, Opening(nonce="a2", replica="a", after=0, recoveries=1))
    assert await listed(a, "a") == {"s"}


@pytest.mark.parametrize(("end", "kept"), [(Finish(), True), (Error(message="no"), False)])
async def test_what_has_ended_is_only_tidied_up(a: Replica, b: Replica, end: Any, kept: bool) -> None:
    """Whoever ended it did not come to say so."""
    await a.begin("s", Once("k", "d"), asked=b"{}")
    await a.say("s", 1, 1, end)
    await a.die()
    assert await b.adopt("s", "a") is None
    assert await b.log("s") == [("1-0", ("a", 0)), ("1-1", texts([end]))], "something was written after an end"
    assert await listed(b, "a") == set()
    assert 0 < await b.store.client.ttl(b.logs.log("s")) <= 60, "it is kept for longer than its time"
    assert await b.logs.asked("s") is None
    assert await b.begin("t", Once("k", "d")) == ("s" if kept else "t"), "its idempotency key has another time than it"


async def test_what_ended_before_it_said_anything_is_no_answer(a: Replica, b: Replica, c: Replica) -> None:
    """Its first producer wrote nothing, and who took it over nothing but that it failed."""
    await a.begin("s", Once("k", "d"))
    await a.die()
    assert await b.adopt("s", "a") is not None
    await b.say("s", 2, 2, Recovered(how="failed"), Error(message="no"))
    await b.die()
    assert await c.adopt("s", "b") is None
    assert await listed(c, "b") == set()
    assert await c.begin("t", Once("k", "d")) == "t", "the same request can never be answered"


async def test_what_is_gone_is_forgotten(a: Replica, b: Replica) -> None:
    await a.begin("s", asked=b"{}")
    await a.die()
    await b.store.client.delete(b.logs.log("s"))
    assert await b.adopt("s", "a") is None
    assert not await b.store.client.exists(b.logs.log("s")), "it came back"
    assert await listed(b, "a") == set()
    assert await b.logs.asked("s") is None
    assert await b.orphanage.find() == []
    assert await b.store.client.smembers(b.store.key("producers")) == set(), "the dead are listed for ever"


async def test_what_redis_has_lost_a_part_of_is_left_to_its_readers(a: Replica, b: Replica) -> None:
    await a.begin("s")
    await a.say("s", 2, 1, "x")  # its epoch's beginning is not there
    await a.die()
    assert await b.adopt("s", "a") is None
    assert await listed(b, "a") == set(), "it is looked at again and again"


async def test_what_a_newer_weir_wrote_is_left_to_a_newer_one(a: Replica, b: Replica) -> None:
    await a.begin("s")
    await a.logs.append([Append("s", Place(1, 1), "m", b'[{"type": "song"}]')])
    await a.die()
    assert await b.adopt("s", "a") is None
    assert await listed(b, "a") == {"s"}


async def test_a_word_of_the_old_producers_in_between_is_not_lost(a: Replica, b: Replica) -> None:
    """It is not dead, and writes between the look and the claim: nothing is taken over then; the next try sees it."""
    await a.begin("s")
    await a.die()
    look = b.logs.tip

    async def interrupted(stream_id: str) -> Any:
        found = await look(stream_id)
        assert await a.say("s", 1, 1, "x") is Outcome.LANDED
        return found

    b.logs.tip = interrupted  # type: ignore[method-assign]
    assert await b.adopt("s", "a") is None
    b.logs.tip = look  # type: ignore[method-assign]
    assert await b.log("s") == [("1-0", ("a", 0)), ("1-1", "x")]
    await forget_the_claim(b, "s")
    adopted = await b.adopt("s", "a")
    assert adopted is not None
    assert adopted.opening.after == 1


async def test_who_begins_again_at_that_moment_is_not_forgotten(a: Replica, b: Replica) -> None:
    """Its lease was gone, for it had nothing to do, and it is about to be taken off the list."""
    await a.begin("s")
    await a.logs.ended("s", "o", None, answered=True)
    await a.die()

    class Late(Orphanage):
        async def _forget(self, producer: str) -> None:
            await a.begin("t")
            await super()._forget(producer)

    assert await Late(b.logs).find() == []
    await a.die()
    assert await b.orphanage.find() == [("a", "t")], "what it began is never found"


async def test_leases_are_renewed_and_given_back(a: Replica, b: Replica) -> None:
    await a.begin("s")
    await a.store.client.expire(a.logs.log("s"), 5)
    await a.die()
    await a.orphanage.renew(["s"])
    assert await b.orphanage.lives("a")
    assert 0 < await b.store.client.pttl(b.logs.lease("a")) <= LEASE * 1000, "the dead live for ever"
    assert await b.store.client.ttl(b.logs.log("s")) > 1000, "what still runs is forgotten"
    await a.orphanage.release()
    assert not await b.orphanage.lives("a")
    assert await b.orphanage.find() == [("a", "s")], "what was released has to wait"


async def test_a_reader_elsewhere_shows(a: Replica, b: Replica) -> None:
    await b.orphanage.watch(["s", "t"])
    assert await a.orphanage.watched(["s", "u", "t"]) == {"s", "t"}
    assert 0 < await a.store.client.pttl(a.store.key("watched", "s")) <= WATCHED * 1000, "readers stay for ever"
    await b.orphanage.watch([])
    assert await a.orphanage.watched([]) == set()


async def test_an_adoption_of_which_nothing_was_heard_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It landed, and its reply did not come: it is listed as the adopter's own, and taken up from there."""
    with RedisServer(enable_debug_command="local") as server:
        async with stores_at(server.url) as stores:
            a, b = Replica(stores, "a"), Replica(stores, "b")
            await a.begin("s")
            await a.die()
            owning = b.logs.owning

            def slowly(stream_id: str) -> list[Words]:  # longer than anybody waits, and in the transaction
                return [*owning(stream_id), ("DEBUG", "SLEEP", "0.4")]

            b.logs.owning = slowly  # type: ignore[method-assign]
            with monkeypatch.context() as hurry, pytest.raises(StoreAway):
                hurry.setattr("proxy.state.store.PATIENCE", 0.25)
                await b.adopt("s", "a")
            b.logs.owning = owning  # type: ignore[method-assign]
            assert "PONG" in await asyncio.to_thread(server.command, "PING")
            assert await b.orphanage.find() == [("b", "s")]
            await forget_the_claim(b, "s")
            again = await b.adopt("s", "b")
            assert again is not None
            assert (again.epoch, again.opening.recoveries) == (3, 1), "a reply that was lost used up its one recovery"


# Races.

RACES, AT_ONCE, WORDS = 1000, 10, 3


class Race:
    """For one stream: its producer writes on, though its lease is gone, while two others want to take it over."""

    def __init__(self, producer: Replica, adopters: Sequence[Replica], stream_id: str):
        self._producer = producer
        self._adopters = adopters
        self._id = stream_id
        self._acknowledged: list[str] = []

    async def run(self) -> str:
        """What went wrong."""
        writing = self._write(self._producer, 1, 0)
        _, *won = await asyncio.gather(writing, *map(self._take_over, self._adopters))
        return self._fault(await self._producer.whole(self._id)) if won.count(True) == 1 else f"{won} won"

    async def _take_over(self, adopter: Replica) -> bool:
        while True:
            adopted = await adopter.adopt(self._id, self._producer.name)
            if adopted is not None:
                return await self._write(adopter, adopted.epoch, adopted.opening.after)
            last = await adopter.logs.last(self._id)
            if last is None or last[1].replica not in (self._producer.name, adopter.name):
                return False

    async def _write(self, who: Replica, epoch: int, after: int) -> bool:
        for seq in range(after + 1, after + 1 + WORDS):
            word = f"{who.name}{seq} "
            if await who.say(self._id, epoch, seq, word) is not Outcome.LANDED:
                return False
            self._acknowledged.append(word)
        return True

    def _fault(self, entries: list[Entry]) -> str:
        places = [entry.place for entry in entries]
        said = [texts(entry.events) for entry in entries if entry.events]
        seq = 0
        for entry in entries:
            if (entry.opening.after if entry.opening is not None else entry.place.seq - 1) != seq:
                return f"a position is lost or doubled at {entry.place}"
            seq = entry.place.seq or seq
        if places != sorted(set(places)):
            return f"epochs fall: {places}"
        return "" if said == self._acknowledged else f"{said} is there, and {self._acknowledged} was acknowledged"


async def test_of_two_who_want_a_stream_exactly_one_gets_it(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their claims hold for a millisecond: what keeps them apart is the order of ids, and nothing else."""
    monkeypatch.setattr("proxy.state.orphans.CLAIM", 0.001)
    async with stores_at(shared_redis.url) as stores:
        producer, *adopters = (Replica(stores, name) for name in "abc")
        turns = asyncio.Semaphore(AT_ONCE)

        async def raced(stream_id: str) -> str:
            async with turns:
                return await Race(producer, adopters, stream_id).run()

        names = [f"s{number}" for number in range(RACES)]
        for name in names:
            await producer.begin(name)
        await producer.die()
        faults = await asyncio.gather(*map(raced, names))
        assert [fault for fault in faults if fault] == []
        assert await listed(producer, "a") == set()
        shares = [await listed(producer, name) for name in "bc"]
        assert all(shares), "one of them never won: that was no race"
        assert shares[0] | shares[1] == set(names)
