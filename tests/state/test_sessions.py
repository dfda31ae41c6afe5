"""Sessions: seen by every replica, by nobody else, complete however many write at once, and gone when they are gone."""

import asyncio
import random
import time
from typing import Any

import pytest

import proxy.state.sessions
import proxy.state.store
from proxy.errors import RequestError, StoreAway
from proxy.session.conversation import AnswerRecord, Feedback, Session, Spent, history, owner
from proxy.state.sessions import MOST_OF_A_TURN, SessionRef, SessionStore
from proxy.state.store import PATIENCE, Store
from tests.redis_server import RedisServer, free_port
from tests.state.stores import Stores, stores_at

pytestmark = pytest.mark.anyio

TTL = 1000
ANN, BOB = owner("key-1", "ann"), owner("key-1", "bob")
REF = SessionRef.of(ANN, "chat-1")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several replicas share this process here, and perhaps a busy machine: that is no outage."""
    monkeypatch.setattr(proxy.state.store, "PATIENCE", 10.0)


def sessions_at(store: Store, ttl: float = TTL, ahead: float = 0.0) -> SessionStore:
    """A replica's; `ahead`: seconds by which its clock is in the future."""
    return SessionStore(store, ttl, lambda: time.time() + ahead)


@pytest.fixture
def one(stores: Stores) -> SessionStore:
    return sessions_at(stores())


@pytest.fixture
def two(stores: Stores) -> SessionStore:
    """Another replica."""
    return sessions_at(stores())


def user(text: str = "hi") -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str = "hello", end: Any = "finish", **fields: Any) -> AnswerRecord:
    return AnswerRecord(provider="p", end=end, message={"role": "assistant", "content": text}, **fields)


async def say(sessions: SessionStore, question: str, answer: str, ref: SessionRef = REF, **how: Any) -> Session:
    """One whole turn; the session before it."""
    begun = await sessions.begin(ref, [user(question)], f"stream-{question}", **how)
    await sessions.end(ref, begun.turn, [says(answer)])
    return begun.session


async def loaded(sessions: SessionStore, ref: SessionRef = REF) -> Session:
    session = await sessions.load(ref)
    assert session is not None
    return session


def talk(session: Session) -> list[str]:
    return [message["content"] for message in history(session)]


async def keys(store: Store) -> set[str]:
    prefix = store.key()
    return {key.removeprefix(prefix) for key in await store.client.keys(f"{prefix}*")}


# What is kept


async def test_what_one_replica_wrote_another_reads(one: SessionStore, two: SessionStore) -> None:
    began = time.time()
    assert (await say(one, "a", "1")).turns == []
    assert talk(await say(two, "b", "2")) == ["a", "1"]
    session = await loaded(one)
    assert talk(session) == ["a", "1", "b", "2"]
    first, second = session.turns
    assert (first.stream_id, first.state, first.messages) == ("stream-a", "finished", [user("a")])
    assert first.answers == [says("1")]
    assert began - 1 < first.began <= (first.ended or 0) <= second.began < time.time() + 1
    assert (session.id, session.created, session.updated) == ("chat-1", first.began, second.ended)


async def test_messages_come_back_as_they_were(one: SessionStore) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "漢字 \u2028 \x00 \U0001f600"},
        {"role": "user", "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "user", "content": None, "name": "n", "unknown": {"deep": [1, 2.5, True, {}]}},
    ]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    answers = [
        AnswerRecord(
            provider="openai",
            source="fast",
            end="finish",
            message={"role": "assistant", "content": None, "tool_calls": [call]},
            usage=Spent(12, 34, {"prompt_tokens_details": {"cached_tokens": 5}}),
        ),
        AnswerRecord(provider="", source="slow", end="error", error="no provider could answer"),
    ]
    begun = await one.begin(REF, messages, "s")
    await one.end(REF, begun.turn, answers)
    (turn,) = (await loaded(one)).turns
    assert turn.messages == messages
    assert turn.answers == answers


async def test_a_turn_runs_until_it_ends(one: SessionStore, two: SessionStore) -> None:
    begun = await one.begin(REF, [user()], "s")
    (turn,) = (await loaded(two)).turns
    assert (turn.id, turn.state, turn.ended, turn.answers) == (begun.turn, "running", None, [])
    assert history(await loaded(two)) == []
    await one.end(REF, begun.turn, [says()])
    assert (await loaded(two)).turns[0].state == "finished"


@pytest.mark.parametrize("end", ["error", "abort"])
async def test_a_stream_that_breaks_is_recorded_as_broken(end: str, one: SessionStore) -> None:
    begun = await one.begin(REF, [user()], "s")
    await one.end(REF, begun.turn, [says("Once up", end, error="the provider broke off")])
    session = await loaded(one)
    assert session.turns[0].state == "broken"
    assert session.turns[0].answers[0].error == "the provider broke off"
    assert talk(session) == ["hi", "Once up"], "what was said stands, so that the reader can say `go on`"


async def test_a_turn_whose_replica_died_is_broken_after_an_hour(one: SessionStore, stores: Stores) -> None:
    begun = await one.begin(REF, [user()], "s")
    assert (await loaded(sessions_at(stores(), TTL, ahead=3500))).turns[0].state == "running"
    later = sessions_at(stores(), TTL, ahead=3700)
    assert (await loaded(later)).turns[0].state == "broken"
    await one.end(REF, begun.turn, [says()])
    assert (await loaded(later)).turns[0].state == "finished", "it was only slow"


async def test_the_last_turn_can_be_replaced(one: SessionStore) -> None:
    await say(one, "a", "1")
    await say(one, "b", "2")
    assert talk(await say(one, "b", "better", replace_last=True)) == ["a", "1"]
    assert talk(await loaded(one)) == ["a", "1", "b", "better"]
    assert (await one.recent(ANN))[0].turns == 2
    other = SessionRef.of(ANN, "empty")
    await say(one, "a", "1", other, replace_last=True)
    assert talk(await loaded(one, other)) == ["a", "1"]
    assert (await one.recent(ANN))[0].turns == 1


async def test_turns_are_counted_as_they_are_kept(one: SessionStore) -> None:
    await say(one, "a", "1")
    await say(one, "never came", "2", replace_last=True)
    assert (await one.recent(ANN))[0].turns == len((await loaded(one)).turns) == 2
    begun = await one.begin(REF, [{"role": "tool", "tool_call_id": "c", "content": "42"}], "results")
    await one.end(REF, begun.turn, [says("3")])
    begun = await one.begin(REF, [user("never came")], "once more", replace_last=True)
    await one.end(REF, begun.turn, [says("better")])
    assert (await one.recent(ANN))[0].turns == len((await loaded(one)).turns) == 2


async def test_feedback_is_kept(one: SessionStore, two: SessionStore) -> None:
    feedback = Feedback(stream_id="s", position=7, rating="down", remark="wrong", source="fast")
    assert not await one.add_feedback(REF, feedback), "there is no such session"
    await say(one, "a", "1")
    before = time.time()
    assert await two.add_feedback(REF, feedback)
    (kept,) = (await loaded(one)).feedback
    assert before - 1 < kept.at < time.time() + 1
    feedback.at = kept.at
    assert kept == feedback


async def test_without_history_nothing_is_read(one: SessionStore) -> None:
    await say(one, "a", "1")
    assert (await say(one, "b", "2", read=False)).turns == []
    assert talk(await loaded(one)) == ["a", "1", "b", "2"]


async def test_a_session_that_is_not_there(one: SessionStore) -> None:
    assert await one.load(REF) is None
    assert not await one.delete(REF)
    await one.end(REF, "1-0", [says()])
    assert await one.load(REF) is None


# At once


async def test_fifty_at_once_lose_and_mix_nothing(stores: Stores) -> None:
    replicas = [sessions_at(stores()) for _ in range(5)]

    async def ask(number: int) -> str:
        replica = replicas[number % 5]
        messages = [user(f"{number}/{part}") for part in range(3)]
        begun = await replica.begin(REF, messages, f"stream-{number}")
        for _ in range(random.randrange(10)):
            await asyncio.sleep(0)
        said = talk(begun.session)
        assert len(said) % 4 == 0
        for at in range(0, len(said), 4):
            asked = said[at].partition("/")[0]
            assert said[at : at + 4] == [*(f"{asked}/{part}" for part in range(3)), f"to {asked}"], "turns are mixed"
        await replica.end(REF, begun.turn, [says(f"to {number}")])
        return begun.turn

    turns = await asyncio.gather(*map(ask, range(50)))
    session = await loaded(replicas[0])
    assert sorted(turn.id for turn in session.turns) == sorted(turns), "a turn is lost"
    assert len(talk(session)) == 50 * 4
    for turn in session.turns:
        number = turn.stream_id.removeprefix("stream-")
        assert turn.messages == [user(f"{number}/{part}") for part in range(3)]
        assert turn.answers == [says(f"to {number}")], "another turn's answer"
    assert (await replicas[1].recent(ANN))[0].turns == 50


async def test_a_turn_knows_what_was_finished_when_it_began(one: SessionStore, two: SessionStore) -> None:
    slow = await one.begin(REF, [user("slow")], "s")
    assert talk(await say(two, "quick", "done")) == []
    await one.end(REF, slow.turn, [says("at last")])
    assert talk(await say(two, "next", "3")) == ["slow", "at last", "quick", "done"], "in the order they were asked"


# Deleted, expired, listed


async def test_a_deleted_session_leaves_nothing_and_does_not_come_back(one: SessionStore, store: Store) -> None:
    await say(one, "a", "1")
    running = await one.begin(REF, [user("b")], "s")
    assert await one.delete(REF)
    assert await keys(store) == set(), "something of it is left"
    await one.end(REF, running.turn, [says("secret")])
    assert not await one.add_feedback(REF, Feedback(stream_id="s"))
    assert await one.load(REF) is None
    assert await one.recent(ANN) == []
    assert await one.active() == 0
    assert await keys(store) == set(), "the answer brought it back"


async def test_an_answer_does_not_go_to_the_next_session_of_that_name(one: SessionStore) -> None:
    running = await one.begin(REF, [user("old")], "s")
    await one.delete(REF)
    await say(one, "new", "1")
    await one.end(REF, running.turn, [says("old answer")])
    assert talk(await loaded(one)) == ["new", "1"]


async def test_deleting_among_turns_that_run(stores: Stores) -> None:
    replicas = [sessions_at(stores()) for _ in range(3)]
    for _ in range(10):
        begun = await asyncio.gather(*(each.begin(REF, [user()], "s") for each in replicas))
        ends = [each.end(REF, it.turn, [says()]) for each, it in zip(replicas, begun, strict=True)]
        await asyncio.gather(*ends[:2], replicas[2].delete(REF), ends[2])
        assert await replicas[0].load(REF) is None


async def test_everything_of_it_expires_after_its_last_use(stores: Stores, store: Store) -> None:
    await say(sessions_at(store, ttl=500), "a", "1")
    kept = [key for key in await keys(store) if key != "sessions"]
    assert len(kept) == 3
    for key in kept:
        assert 490 < await store.client.ttl(store.key(key)) <= 500
    other = sessions_at(stores(), ttl=900)
    for use in (say(other, "b", "2"), other.add_feedback(REF, Feedback(stream_id="s"))):
        await use
        for key in kept:
            assert 890 < await store.client.ttl(store.key(key)) <= 900, f"{key} was not renewed"
            await store.client.expire(store.key(key), 500)


async def test_a_session_that_expired_is_not_there(one: SessionStore, store: Store) -> None:
    running = await one.begin(REF, [user()], "s")
    await store.client.pexpire(store.key("session", *REF), 1)
    async with asyncio.timeout(5):
        while await one.load(REF) is not None:
            pass
    assert await one.recent(ANN) == []
    await one.end(REF, running.turn, [says()])
    assert await one.load(REF) is None


async def test_sessions_are_listed_last_used_first_and_page_by_page(one: SessionStore) -> None:
    refs = [SessionRef.of(ANN, f"chat-{number}") for number in range(5)]
    for ref in refs:
        await say(one, "a", "1", ref)
    await say(one, "b", "2", refs[1])
    listed = await one.recent(ANN)
    assert [it.id for it in listed] == ["chat-1", "chat-4", "chat-3", "chat-2", "chat-0"]
    assert [it.turns for it in listed] == [2, 1, 1, 1, 1]
    assert all(abs(it.updated - time.time()) < 5 for it in listed)
    paged: list[str] = []
    before = None
    while page := await one.recent(ANN, limit=2, before=before):
        paged += [it.id for it in page]
        before = page[-1].updated
    assert paged == [it.id for it in listed]


async def test_the_list_forgets_what_has_expired(one: SessionStore, stores: Stores, store: Store) -> None:
    await say(one, "a", "1")
    later = sessions_at(stores(), TTL, ahead=TTL + 10)
    assert await later.recent(ANN) == []
    await say(later, "a", "1", SessionRef.of(ANN, "chat-2"))
    assert await store.client.zrange(store.key("sessions", ANN), 0, -1) == ["chat-2"]


async def test_active_sessions_are_those_of_the_last_hour(one: SessionStore, stores: Stores, store: Store) -> None:
    for name in ("a", "b"):
        await say(one, "x", "y", SessionRef.of(ANN, name))
    await say(one, "x", "y", SessionRef.of(BOB, "a"))
    await say(one, "x", "y", SessionRef.of(BOB, "a"))
    assert await one.active() == 3
    later = sessions_at(stores(), TTL, ahead=3610)
    assert await later.active() == 0
    await say(later, "x", "y", REF)
    assert await store.client.zcard(store.key("sessions")) == 1, "what is past is forgotten"


# Whose it is


async def test_another_owners_session_does_not_exist(one: SessionStore) -> None:
    await say(one, "a", "secret")
    other = SessionRef.of(BOB, REF.id)
    assert await one.load(other) is None
    assert not await one.delete(other)
    assert not await one.add_feedback(other, Feedback(stream_id="s"))
    assert await one.recent(BOB) == []
    assert (await say(one, "mine", "1", other)).turns == [], "the same name is another session"
    assert talk(await loaded(one)) == ["a", "secret"]


async def test_no_key_or_user_stands_in_redis_in_clear(store: Store) -> None:
    ref = SessionRef.of(owner("sk-secret-key", "ann@example.com"), "x")
    await say(sessions_at(store), "a", "1", ref)
    for key in await keys(store):
        assert "secret" not in key
        assert "ann" not in key


@pytest.mark.parametrize("name", ["a", "A-1_b.c:d", "x" * 128, "...", ".a", "turns", ":"])
def test_a_name_may_be(name: str) -> None:
    assert SessionRef.of(ANN, name) == (ANN, name)


@pytest.mark.parametrize("name", ["", "x" * 129, "a/b", "a b", "a\n", "é", ".", "..", "a\x00", "*", "a%2f"])
def test_a_name_may_not_be(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        SessionRef.of(ANN, name)
    assert (caught.value.status, caught.value.param) == (400, "session_id")


# Bounds, and a Redis that is away


async def test_a_turn_that_is_too_large_is_refused_and_leaves_nothing(one: SessionStore, store: Store) -> None:
    with pytest.raises(RequestError) as caught:
        await one.begin(REF, [user("x" * MOST_OF_A_TURN)], "s")
    assert (caught.value.status, caught.value.param) == (413, "messages")
    assert await keys(store) == set()


async def test_an_answer_that_is_too_large_is_told_as_broken(one: SessionStore) -> None:
    begun = await one.begin(REF, [user()], "s")
    await one.end(REF, begun.turn, [says("x" * MOST_OF_A_TURN)])
    (turn,) = (await loaded(one)).turns
    assert (turn.state, turn.answers[0].error, turn.answers[0].provider) == ("broken", "more than can be kept", "p")


async def test_without_redis_it_is_a_503_at_once() -> None:
    async with stores_at(f"redis://127.0.0.1:{free_port()}") as stores:
        sessions = sessions_at(stores())
        for _ in range(3):
            asked = time.monotonic()
            for work in (sessions.begin(REF, [user()], "s"), sessions.load(REF), sessions.recent(ANN)):
                with pytest.raises(StoreAway) as caught:
                    await work
                assert caught.value.status == 503
            assert time.monotonic() - asked < PATIENCE


async def test_what_ends_while_redis_is_away_is_written_when_it_is_back(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        store = stores()
        sessions = sessions_at(store)
        begun = [await sessions.begin(SessionRef.of(ANN, str(at)), [user()], "s") for at in range(3)]
        await asyncio.to_thread(redis_server.kill)
        for at, it in enumerate(begun):
            await sessions.end(SessionRef.of(ANN, str(at)), it.turn, [says()])
        with pytest.raises(StoreAway):
            await sessions.settle()
        await asyncio.to_thread(redis_server.start)
        await sessions.settle()
        store.back()
        for at in range(3):
            assert talk(await loaded(sessions, SessionRef.of(ANN, str(at)))) == ["hi", "hello"]
        length = await store.client.xlen(store.key("session", ANN, "0"))
        await sessions.settle()
        assert await store.client.xlen(store.key("session", ANN, "0")) == length, "written once"


async def test_not_everything_waits_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy.state.sessions, "MOST_OWED", 8)
    async with stores_at(None) as stores:
        store = stores()
        sessions = sessions_at(store)
        begun = [await sessions.begin(REF, [user(str(at))], "s") for at in range(20)]
        store.away = True
        for it in begun:
            await sessions.end(REF, it.turn, [says()])
        store.back()
        await sessions.settle()
        finished = [turn.state == "finished" for turn in (await loaded(sessions)).turns]
    assert finished == [False] * 12 + [True] * 8, "the latest are the ones that are kept"


async def test_a_request_that_is_broken_off_while_it_writes_its_end(one: SessionStore) -> None:
    begun = await one.begin(REF, [user()], "s")
    for patience in range(20):
        ending = asyncio.create_task(one.end(REF, begun.turn, [says()]))
        for _ in range(patience):
            await asyncio.sleep(0)
        ending.cancel()
        await asyncio.wait([ending])
    await one.settle()
    session = await loaded(one)
    assert [turn.answers for turn in session.turns] == [[says()]], "told many times, it counts once"


async def test_a_session_that_cannot_be_read_has_no_turn_that_runs(
    one: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise StoreAway("a session")

    with monkeypatch.context() as away, pytest.raises(StoreAway):
        away.setattr(one, "load", fails)
        await one.begin(REF, [user()], "s")
    await one.settle()
    assert [turn.state for turn in (await loaded(one)).turns] == ["broken"]


async def test_how_many_commands_a_turn_costs(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        sessions = sessions_at(stores())
        await say(sessions, "a", "1")
        before = redis_server.calls()
        await say(sessions, "b", "2")
        after = redis_server.calls()
    spent = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert spent.pop("multi") == spent.pop("exec") == 3, "one transaction to begin, one to read, one to end"
    assert sum(spent.values()) <= 24, spent
