"""Conversations, shared by all replicas: each is a Redis stream of what was asked, answered and thought of it.

A stream, rather than a hash of turns: one XADD both numbers a turn and writes it, so that requests at once need no lock
and no second try; and XADD NOMKSTREAM, unlike HSET, cannot bring back a session that was deleted.
"""

import asyncio
import contextlib
import re
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import msgspec

from proxy.adapter import Messages
from proxy.errors import RequestError, StoreAway
from proxy.session.conversation import SESSION_ID, AnswerRecord, Feedback, Session
from proxy.state.session_log import Answered, Asked, entry, read_log, replaced
from proxy.state.session_room import Held, Keys, drop_oldest
from proxy.state.store import Lost, Store

MOST_OF_A_TURN = 8 * 1024**2  # bytes of its messages, and of its answers
MOST_OWED = 1000  # answers that Redis was away for; there are no more than streams ran when it went
ACTIVE = 3600.0  # seconds since its last use for which a session counts as active

_WHAT = "a session"
_T = TypeVar("_T")


class SessionRef(NamedTuple):
    """A session, and whose it is (`conversation.owner`). As that is a part of every key, nobody can name another's."""

    owner: str
    id: str

    @classmethod
    def of(cls, owner: str, session_id: str) -> "SessionRef":
        """Raises RequestError for an id that is none."""
        if not re.match(SESSION_ID, session_id):
            message = "session_id: must be 1 to 128 letters, digits, `.`, `_`, `:` or `-`"
            raise RequestError(message, param="session_id")
        return cls(owner, session_id)


class Begun(NamedTuple):
    """A turn that has begun, and the session before it: without turns, unless it was to be read."""

    turn: str
    session: Session


class Listed(msgspec.Struct):
    """`turns` counts all that were ever begun, dropped ones too. `updated` is in seconds since 1970."""

    id: str
    updated: float
    turns: int


class SessionStore:
    """`ttl`: seconds for which a session is kept after its last use. All methods but `end` may raise StoreAway."""

    def __init__(self, store: Store, ttl: float, clock: Callable[[], float] = time.time):
        self._store = store
        self._ttl = int(ttl)
        self._clock = clock
        self._active = store.key("sessions")
        self._owed: deque[tuple[SessionRef, dict[str, bytes]]] = deque(maxlen=MOST_OWED)

    async def begin(
        self, ref: SessionRef, messages: Messages, stream_id: str, *, read: bool = True, replace_last: bool = False
    ) -> Begun:
        """Writes down what is asked, and then, with `read`, reads what was said before.

        With `replace_last` the turn takes the place of the last answer to the same messages. Raises RequestError (413)
        for more than can be kept.
        """
        record = Asked(stream_id, messages, replace_last)
        asked = entry(record)
        if _length(asked) > MOST_OF_A_TURN:
            said = f"the messages of one turn of a session may have {MOST_OF_A_TURN // 1024**2} MiB"
            raise RequestError(said, status=413, code="turn_too_large", param="messages")
        before = await self.load(ref) if replace_last else None
        turn, held = await self._begin(ref, asked, 1 - len(replaced(before.turns, record)) if before else 1)
        await self._make_room(ref, held)
        try:
            session = await self.load(ref, until=turn) if read else None
        except (StoreAway, asyncio.CancelledError):
            self._owed.append((ref, entry(Answered(turn, []))))  # nobody is going to answer it
            raise
        if session is not None:
            session.turns.pop()  # the one that has just begun
        return Begun(turn, session or Session(id=ref.id))

    async def _begin(self, ref: SessionRef, asked: dict[str, bytes], counts: int) -> tuple[str, Held]:
        keys, now, pipe = self._keys(ref), self._clock(), self._transaction()
        pipe.xadd(keys.log, asked)
        pipe.zincrby(keys.size, _length(asked), "bytes")
        pipe.xlen(keys.log)
        pipe.zincrby(keys.size, counts, "turns")
        pipe.zadd(keys.listing, {ref.id: now})
        pipe.zadd(self._active, {":".join(ref): now})
        pipe.zremrangebyscore(keys.listing, "-inf", now - self._ttl)
        pipe.zremrangebyscore(self._active, "-inf", now - ACTIVE)
        self._renew(pipe, keys)
        turn, *held = (await self._ask(pipe.execute))[:3]
        return turn, Held(*held)

    async def end(self, ref: SessionRef, turn: str, answers: list[AnswerRecord]) -> None:
        """Writes down what was answered, by each source; nothing, if the session was deleted meanwhile.

        If Redis is away, `settle` does it later: the reader has the answer already, so nobody is left to be told.
        """
        answered = _written(turn, answers)
        try:
            await self._add(ref, answered)
        except StoreAway:
            self._owed.append((ref, answered))
        except asyncio.CancelledError:
            self._owed.append((ref, answered))  # it may have landed: told twice, it counts once
            raise

    async def settle(self) -> None:
        """Writes what `end` could not. To be called now and then; costs nothing where there is nothing."""
        while self._owed:
            ref, answered = self._owed[0]
            await self._store.attempt(_WHAT, self._adding(ref, answered).execute())
            self._owed.popleft()

    async def add_feedback(self, ref: SessionRef, feedback: Feedback) -> bool:
        """False: there is no such session."""
        return await self._add(ref, entry(feedback))

    async def load(self, ref: SessionRef, *, until: str = "+") -> Session | None:
        """None: there is no such session. `until`: as it was when that entry was written."""
        keys, pipe = self._keys(ref), self._transaction()
        pipe.xrange(keys.log, max=until)
        pipe.get(keys.told)
        entries, told = await self._ask(pipe.execute)
        return read_log(ref.id, entries, told, self._clock())

    async def delete(self, ref: SessionRef) -> bool:
        """False: there is no such session. What is being answered in it will not be written down."""
        keys, pipe = self._keys(ref), self._transaction()
        pipe.delete(keys.log)
        pipe.delete(keys.size, keys.told)
        pipe.zrem(keys.listing, ref.id)
        pipe.zrem(self._active, ":".join(ref))
        deleted, *_ = await self._ask(pipe.execute)
        return bool(deleted)

    async def recent(self, owner: str, limit: int = 100, before: float | None = None) -> list[Listed]:
        """An owner's sessions, the last used first; `before`: only those used before that time."""
        return await self._ask(lambda: self._recent(owner, limit, before))

    async def active(self) -> int:
        """How many sessions, of anybody's, were used in the last hour."""
        return await self._ask(lambda: self._store.client.zcount(self._active, self._clock() - ACTIVE, "+inf"))

    async def _ask(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """What `work` finds in Redis."""
        return await self._store.in_turn(_WHAT, work)

    def _transaction(self) -> Any:
        """Commands that are noted one by one, and done when it is executed: all of them or none."""
        return self._store.client.pipeline(transaction=True)

    def _keys(self, ref: SessionRef) -> Keys:
        key = self._store.key
        log, size, told = (key(kind, *ref) for kind in ("session", "session-size", "session-told"))
        return Keys(log, size, told, key("sessions", ref.owner))

    def _renew(self, pipe: Any, keys: Keys) -> None:
        for key in keys:
            pipe.expire(key, self._ttl)

    async def _add(self, ref: SessionRef, added: dict[str, bytes]) -> bool:
        """Whether the session is there to be added to."""
        entry_id, size, entries, *_ = await self._ask(self._adding(ref, added).execute)
        await self._make_room(ref, Held(size or 0.0, entries))
        return entry_id is not None

    def _adding(self, ref: SessionRef, added: dict[str, bytes]) -> Any:
        keys, now, pipe = self._keys(ref), self._clock(), self._transaction()
        pipe.xadd(keys.log, added, nomkstream=True)
        pipe.zadd(keys.size, {"bytes": _length(added)}, xx=True, incr=True)
        pipe.xlen(keys.log)
        pipe.zadd(keys.listing, {ref.id: now}, xx=True)
        pipe.zadd(self._active, {":".join(ref): now}, xx=True)
        self._renew(pipe, keys)
        return pipe

    async def _make_room(self, ref: SessionRef, held: Held) -> None:
        """If Redis goes away meanwhile, the next one who adds to the session sees to it."""
        more = held.is_full
        with contextlib.suppress(StoreAway):
            while more:
                with contextlib.suppress(Lost):
                    more = await self._ask(lambda: drop_oldest(self._store, self._keys(ref), self._ttl))

    async def _recent(self, owner: str, limit: int, before: float | None) -> list[Listed]:
        client, index = self._store.client, self._store.key("sessions", owner)
        latest = "+inf" if before is None else f"({before!r}"
        oldest = self._clock() - self._ttl
        found = await client.zrevrangebyscore(index, latest, oldest, start=0, num=limit, withscores=True)
        pipe = client.pipeline(transaction=False)
        for session_id, _ in found:
            keys = self._keys(SessionRef(owner, session_id))
            pipe.exists(keys.log)
            pipe.zscore(keys.size, "turns")
        told = await pipe.execute()
        return [
            Listed(session_id, updated, int(turns or 1))
            for (session_id, updated), there, turns in zip(found, told[::2], told[1::2], strict=True)
            if there  # a Redis that runs out of memory may have dropped it
        ]


def _written(turn: str, answers: list[AnswerRecord]) -> dict[str, bytes]:
    """What is written down of `answers`: where what they said cannot be kept, who gave them and why not."""
    try:
        answered = entry(Answered(turn, answers))
        if _length(answered) <= MOST_OF_A_TURN:
            return answered
        why = "more than can be kept"
    except UnicodeEncodeError:
        why = "no Unicode, which cannot be kept"
    return entry(Answered(turn, [AnswerRecord(provider=it.provider, end="error", error=why) for it in answers]))


def _length(fields: dict[str, bytes]) -> int:
    return sum(map(len, fields.values()))
