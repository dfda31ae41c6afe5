"""A session that holds too much: the oldest turns go, and what they were told to do stays."""

import asyncio
from typing import Any

import pytest

import proxy.state.session_room as room
import proxy.state.store
from proxy.session.conversation import AnswerRecord, history
from proxy.state.session_log import bytes_of
from proxy.state.sessions import SessionRef, SessionStore
from proxy.state.store import Store
from tests.state.stores import Stores

pytestmark = pytest.mark.anyio

REF = SessionRef("owner", "chat")
ENTRIES, BYTES = 40, 20_000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_ENTRIES", ENTRIES)
    monkeypatch.setattr(room, "_LOW_ENTRIES", ENTRIES - 10)
    monkeypatch.setattr(room, "MOST_BYTES", BYTES)
    monkeypatch.setattr(room, "_LOW_BYTES", BYTES - 2_000)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several replicas share this process here, and perhaps a busy machine: that is no outage."""
    monkeypatch.setattr(proxy.state.store, "PATIENCE", 10.0)


@pytest.fixture
def sessions(store: Store) -> SessionStore:
    return SessionStore(store, 1000)


async def say(sessions: SessionStore, *messages: dict[str, Any], answer: str = "ok") -> None:
    begun = await sessions.begin(REF, list(messages), "s", read=False)
    said = {"role": "assistant", "content": answer}
    await sessions.end(REF, begun.turn, [AnswerRecord(provider="p", end="finish", message=said)])


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


async def talk(sessions: SessionStore) -> list[str]:
    session = await sessions.load(REF)
    return [message["content"] for message in history(session)] if session else []


async def measured(store: Store) -> tuple[int, float | None]:
    """What the log really holds, and what is written down about that."""
    entries = await store.client.xrange(store.key("session", *REF))
    return bytes_of(entries), await store.client.zscore(store.key("session-size", *REF), "bytes")


async def test_what_it_holds_is_counted(sessions: SessionStore, store: Store) -> None:
    for text in ("a", "漢字" * 100, "c" * 1000):
        await say(sessions, user(text), answer=text)
    held, counted = await measured(store)
    assert held == counted


async def test_too_many_turns(sessions: SessionStore, store: Store) -> None:
    for at in range(100):
        await say(sessions, user(f"q{at}"), answer=f"a{at}")
        assert await store.client.xlen(store.key("session", *REF)) <= ENTRIES
    said = await talk(sessions)
    assert 30 <= len(said) <= ENTRIES
    assert said == [text for at in range(100) for text in (f"q{at}", f"a{at}")][-len(said) :], "the newest, in order"
    assert (await sessions.recent("owner"))[0].turns == 100
    held, counted = await measured(store)
    assert held == counted


async def test_too_many_bytes(sessions: SessionStore, store: Store) -> None:
    for at in range(50):
        await say(sessions, user(f"q{at}" + "x" * 1500))
        held, counted = await measured(store)
        assert held == counted
        assert held <= BYTES
    said = await talk(sessions)
    assert said[-2].startswith("q49")
    assert len(said) > 10, "more than need be was dropped"


async def test_one_large_turn_stays_alone(sessions: SessionStore) -> None:
    await say(sessions, user("small"))
    await say(sessions, user("x" * (BYTES - 3000)))
    await say(sessions, user("y" * (BYTES - 3000)), answer="seen")
    assert [text[:5] for text in await talk(sessions)] == ["yyyyy", "seen"]


async def test_instructions_outlive_their_turn(sessions: SessionStore, store: Store) -> None:
    await say(sessions, system("rules"), user("first"))
    for at in range(100):
        await say(sessions, *([system("more rules")] if at == 10 else []), user(f"q{at}"))
    said = await talk(sessions)
    assert said[:2] == ["rules", "more rules"]
    assert "first" not in said
    told = store.key("session-told", *REF)
    assert 990 < await store.client.ttl(told) <= 1000
    await sessions.delete(REF)
    assert not await store.client.exists(told)


async def test_instructions_that_come_every_time_are_kept_once(sessions: SessionStore) -> None:
    for at in range(60):
        await say(sessions, system("rules"), system(f"it is {at}"), user(f"q{at}"))
    session = await sessions.load(REF)
    assert session is not None
    kept = [message["content"] for message in session.instructions]
    assert kept.count("rules") == 1
    assert kept[0] == "rules"
    numbers = [int(text.removeprefix("it is ")) for text in kept[1:]]
    assert numbers == list(range(numbers[0], numbers[0] + 31)), "the newest of those that are dropped"


async def test_many_at_once_make_room_once(stores: Stores) -> None:
    replicas = [SessionStore(stores(), 1000) for _ in range(4)]
    for _ in range(5):
        await asyncio.gather(*(say(replica, user("x" * 200)) for replica in replicas for _ in range(5)))
    store = stores()
    held, counted = await measured(store)
    assert held == counted
    length = await store.client.xlen(store.key("session", *REF))
    assert ENTRIES - 10 - 4 <= length <= ENTRIES, "dropped too much, or too little"


async def test_a_count_that_was_wrong_is_put_right(sessions: SessionStore, store: Store) -> None:
    """A Redis that runs out of memory may have dropped the log, and not what is written down about it."""
    await say(sessions, user("a"))
    await store.client.zincrby(store.key("session-size", *REF), 10 * BYTES, "bytes")
    await say(sessions, user("b"))
    assert await talk(sessions) == ["a", "ok", "b", "ok"]
    held, counted = await measured(store)
    assert held == counted


async def test_nothing_is_made_of_a_session_that_is_gone(sessions: SessionStore, store: Store) -> None:
    await say(sessions, user("a"))
    keys = sessions._keys(REF)
    await sessions.delete(REF)
    assert not await room.drop_oldest(store, keys, 1000)
    assert await store.client.keys(store.key("session*")) == []
