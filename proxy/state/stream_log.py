"""The logs of durable streams: each is a Redis stream whose entry ids are `epoch-seq`, and Redis refuses the past.

An epoch is one replica's time as the producer. It begins with an opening, `epoch-0`; then come batches of events, each
under the position of its last one. Positions go on through all epochs without a gap. Once a higher epoch has begun,
Redis takes nothing of a lower one any more: it only takes growing ids. Nothing is written with an id of Redis' own,
nothing but the first entry makes a log (NOMKSTREAM), and nothing is trimmed.
"""

import enum
import itertools
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from redis.exceptions import RedisError, ResponseError

from proxy.errors import RequestError, StoreAway
from proxy.heading import Heading
from proxy.record import Entry, Opening, Place, entry_of, place_of, regressed
from proxy.state.line import Line, Words, command
from proxy.state.party_line import PartyLine
from proxy.state.sessions import SessionRef
from proxy.state.store import Lost, Store

PAGE = 32  # entries that are read at once; each is bounded by what a producer may have waiting
REMEMBERED = 86_400  # seconds for which it is known, after a log's time, that there was one
RUNNING = 86_400  # seconds for which a log is kept without a word from its producer
BLOCK = 1000  # milliseconds that one read waits for news
LEASE = 5.0  # seconds without a sign of life after which a producer is taken for dead

_T = TypeVar("_T")
Recovery = Literal["fail", "restart", "continue"]


class About(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What whoever reads a stream, or takes it over, has to know. It stands in the log's first entry.

    `owner` may read and control it. It is cancelled after `detached` seconds without a reader. `recovery` is what is to
    be done where its producer dies, before all `choices` have ended; `session` is the conversation that it belongs to.
    """

    owner: str
    heading: Heading
    detached: float
    recovery: Recovery = "fail"
    choices: int = 1
    session: SessionRef | None = None
    once: str | None = None  # the idempotency key


class Once(NamedTuple):
    """An idempotency key, and the digest of what was asked under it."""

    key: str
    digest: str


class Append(msgspec.Struct, frozen=True):
    """A batch of events on its way into a log."""

    stream_id: str
    place: Place
    source: str
    array: bytes


class Outcome(enum.Enum):
    LANDED = "it is in the log"
    REFUSED = "the log has this id already, or a later one"
    GONE = "there is no such log any more"
    UNSURE = "nobody knows"


class LogStore:
    """`replica` is who writes. `ttl`: seconds for which a log is kept after its end.

    All methods but `append` raise StoreAway; those for use in a transaction what redis-py raises.
    """

    def __init__(self, store: Store, replica: str, ttl: int):
        self.store = store
        self.replica = replica
        self.ttl = ttl
        self._line = store.line(1.0)  # the writer's own: nobody who can be cancelled shares it
        self._marks = PartyLine(store.line())  # that a stream has begun, or ended
        self._listener = store.line(BLOCK / 1000 + 1.0)
        self._woken = "0-0"
        self._log = store.key("log", "")

    async def _ask(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        return await self.store.in_turn(_WHAT, work)

    def log(self, stream_id: str) -> str:
        return self._log + stream_id

    def lease(self, replica: str) -> str:
        return self.store.key("lease", replica)

    def streams(self, replica: str) -> str:
        return self.store.key("streams", replica)

    async def begin(
        self, stream_id: str, about: About, opening: Opening, *, asked: bytes | None, once: Once | None
    ) -> str:
        """Makes a log, and returns the stream's id; that of the earlier one, where this was asked under `once` before.

        `asked` is the request, for whoever has to ask it again. Raises RequestError (422) for another request under
        the same key, StoreAway.
        """
        making = self._making(stream_id, about, opening, asked)
        if once is None:
            await self.store.wait(_WHAT, self._marks.transact(making), timed=False)
            return stream_id
        while True:
            try:
                return await self._ask(lambda: self._begin(stream_id, about.owner, making, once))
            except Lost:  # somebody else asked under this key at the same moment, and is known now
                continue

    async def _begin(self, stream_id: str, owner: str, making: Sequence[Words], once: Once) -> str:
        async with self.store.client.pipeline(transaction=True) as pipe:
            key = self.once(owner, once.key)
            await pipe.watch(key)
            if earlier := _earlier(await pipe.get(key), once):
                return earlier
            pipe.multi()
            pipe.set(key, msgspec.json.encode([stream_id, once.digest]), ex=RUNNING)
            for words in making:
                pipe.execute_command(*words)
            await pipe.execute()
        return stream_id

    def _making(self, stream_id: str, about: About, opening: Opening, asked: bytes | None) -> list[Words]:
        key, log = self.store.key, self.log(stream_id)
        fields = ("opening", msgspec.json.encode(opening), "about", msgspec.json.encode(about))
        making: list[Words] = [
            ("XADD", log, "1-0", *fields),
            ("EXPIRE", log, RUNNING),
            ("SET", key("stream", stream_id), about.owner, "EX", RUNNING + REMEMBERED),
        ]
        if asked is not None:
            making += [("SET", key("asked", stream_id), asked, "EX", RUNNING)]
        if about.session is not None:
            making += [("SET", key("answering", *about.session), stream_id, "EX", RUNNING)]
        return making + self.owning(stream_id)

    def owning(self, stream_id: str) -> list[Words]:
        """The commands that say that this replica produces that stream, and lives."""
        return [
            ("SADD", self.streams(self.replica), stream_id),
            ("SADD", self.store.key("producers"), self.replica),
            ("SET", self.lease(self.replica), "", "PX", int(LEASE * 1000)),
        ]

    def once(self, owner: str, key: str) -> str:
        return self.store.key("once", owner, key)

    async def append(self, batch: Sequence[Append]) -> list[Outcome]:
        """Writes all of them in one go. Never raises: what became of each is told."""
        ids = [str(it.place) for it in batch]
        adds = [
            command("XADD", self._log + it.stream_id, "NOMKSTREAM", id, it.source, it.array)
            for it, id in zip(batch, ids, strict=True)
        ]
        try:
            replies = await self._line.ask(adds)
        except (RedisError, OSError):
            return [Outcome.UNSURE] * len(batch)
        return list(map(_outcome, ids, replies))

    async def tips(self, stream_ids: Sequence[str]) -> list[Place | None]:
        """Where each log's last entry stands, for the writer; None for a log that is not there."""
        looks = [command("XREVRANGE", self.log(stream_id), "+", "-", "COUNT", "1") for stream_id in stream_ids]
        found = await _heard(self._line, looks)
        return [place_of(reply[0][0]) if reply else None for reply in found]

    async def known(self, stream_id: str) -> tuple[str | None, About | None]:
        """Whose it is or was, None if nobody's; and what the log says of it, None if its time is over."""
        return await self._ask(lambda: self.head(stream_id))

    async def head(self, stream_id: str) -> tuple[str | None, About | None]:
        """As `known`. Raises RedisError, OSError."""
        async with self.store.client.pipeline(transaction=False) as pipe:
            pipe.get(self.store.key("stream", stream_id))
            pipe.xrange(self.log(stream_id), count=1)
            owner, first = await pipe.execute()
        return owner, msgspec.json.decode(first[0][1]["about"], type=About) if first else None

    async def page(self, stream_id: str, after: Place, count: int = PAGE) -> list[Entry]:
        """The next entries of a log after the one at `after`."""
        return await self._ask(lambda: self.read(stream_id, after, count))

    async def read(self, stream_id: str, after: Place, count: int = PAGE) -> list[Entry]:
        """As `page`. Raises RedisError, OSError."""
        found = await self.store.client.xrange(self.log(stream_id), min=f"({after}", count=count)
        return [entry_of(*each) for each in found]

    async def last(self, stream_id: str) -> tuple[Entry, Opening] | None:
        """A log's last entry, and how its epoch began; None if there is no log."""
        return await self._ask(lambda: self.tip(stream_id))

    async def tip(self, stream_id: str) -> tuple[Entry, Opening] | None:
        """As `last`. Raises RedisError, OSError; WeirError (409) if the log has lost the beginning of its epoch."""
        found = await self.store.client.xrevrange(self.log(stream_id), count=1)
        if not found:
            return None
        tip = entry_of(*found[0])
        if tip.opening is not None:
            return tip, tip.opening
        begun = str(Place(tip.place.epoch, 0))
        opened = await self.store.client.xrange(self.log(stream_id), min=begun, max=begun)
        if not opened or (opening := entry_of(*opened[0]).opening) is None:
            raise regressed()
        return tip, opening

    async def answering(self, session: SessionRef) -> str | None:
        """The last durable stream of a session."""
        found: str | None = await self._ask(lambda: self.store.client.get(self.store.key("answering", *session)))
        return found

    async def asked(self, stream_id: str) -> bytes | None:
        """The request, as `begin` was given it."""
        found: str | None = await self._ask(lambda: self.store.client.get(self.store.key("asked", stream_id)))
        return None if found is None else found.encode()

    async def news(self, after: Mapping[str, Place]) -> dict[str, Iterator[Entry]]:
        """Waits a while for what is written to any of these logs after an entry. The entries are read as they are
        taken, which raises msgspec.MsgspecError for one that a newer Weir wrote: the other logs do not suffer for it.
        """
        waker = self.store.key("wake", self.replica)
        places = {**{self.log(stream_id): str(place) for stream_id, place in after.items()}, waker: self._woken}
        read = command("XREAD", "COUNT", PAGE, "BLOCK", BLOCK, "STREAMS", *places, *places.values())
        news = dict((await _heard(self._listener, [read]))[0] or ())
        if woken := news.pop(waker, None):
            self._woken = woken[-1][0]
        return {key.removeprefix(self._log): itertools.starmap(_entry, entries) for key, entries in news.items()}

    async def wake(self) -> None:
        """Has `news` return now."""
        waker = self.store.key("wake", self.replica)
        waking = self._marks.transact([("XADD", waker, "MAXLEN", 1, "*", "", ""), ("EXPIRE", waker, 60)])
        await self.store.attempt(_WHAT, waking, timed=False)

    async def ended(self, stream_id: str, owner: str, once: str | None, *, answered: bool) -> None:
        """The log is complete: its time begins to run. An idempotency key (`once`) under which nothing was answered is
        forgotten at once, so that the same request may be tried again.
        """
        closing = self.close(stream_id, self.replica, owner, once, answered=answered)
        await self.store.attempt(_WHAT, closing, timed=False)

    async def close(self, stream_id: str, producer: str, owner: str, once: str | None, *, answered: bool) -> None:
        """As `ended`, of a stream that is listed as `producer`'s. Raises RedisError, OSError."""
        closing: list[Words] = [
            ("EXPIRE", self.log(stream_id), self.ttl),
            ("SET", self.store.key("stream", stream_id), owner, "EX", self.ttl + REMEMBERED),
            ("DEL", self.store.key("asked", stream_id)),
            ("SREM", self.streams(producer), stream_id),
        ]
        if once is not None:
            closing.append(("EXPIRE", self.once(owner, once), self.ttl if answered else 0))
        await self._marks.transact(closing, anyway=True)


_WHAT = "a durable stream"


async def _heard(line: Line, commands: Sequence[bytes]) -> list[Any]:
    """What Redis says to each of them. Raises StoreAway where it refuses one, too."""
    try:
        replies = await line.ask(commands)
    except (RedisError, OSError):
        raise StoreAway(_WHAT) from None
    if any(isinstance(reply, Exception) for reply in replies):
        raise StoreAway(_WHAT)
    return replies


def _entry(id: str, words: Sequence[str]) -> Entry:
    return entry_of(id, dict(zip(words[::2], words[1::2], strict=True)))


def _earlier(known: str | None, once: Once) -> str | None:
    """The stream that was begun under this key. It is known for no longer than there is its log."""
    if known is None:
        return None
    earlier, digest = msgspec.json.decode(known, type=tuple[str, str])
    if digest != once.digest:
        told = "this Idempotency-Key came with another request before: a new request needs a new key"
        raise RequestError(told, status=422, code="idempotency_key_reused")
    return earlier


def _outcome(id: str, reply: Any) -> Outcome:
    if reply == id:
        return Outcome.LANDED
    if reply is None:
        return Outcome.GONE
    if isinstance(reply, ResponseError) and "equal or smaller" in str(reply):
        return Outcome.REFUSED
    return Outcome.UNSURE
