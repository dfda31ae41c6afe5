"""Streams whose producer has died: who finds them, and how exactly one replica takes each of them over."""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from proxy.errors import WeirError
from proxy.record import Opening, Place, answers
from proxy.state.store import Lost
from proxy.state.stream_log import LEASE, RUNNING, LogStore

WATCHED = 3.0  # seconds for which a replica's word counts that it has readers
CLAIM = 2.0  # seconds for which others leave a stream to whoever wants to take it over


class Adopted(NamedTuple):
    """A stream that is this replica's now: its epoch, and the last position before it."""

    epoch: int
    opening: Opening


class Orphanage:
    """Leases are only a hint that a producer is dead: what keeps a log right is the order of its ids."""

    def __init__(self, logs: LogStore):
        self._logs = logs
        self._store = logs.store
        self._producers = logs.store.key("producers")

    async def renew(self, running: Sequence[str]) -> None:
        """Says that this replica lives, and which logs it still writes to. Raises StoreAway."""
        pipe = self._store.client.pipeline(transaction=False)
        pipe.set(self._logs.lease(self._logs.replica), "", px=int(LEASE * 1000))
        pipe.sadd(self._producers, self._logs.replica)
        for stream_id in running:
            pipe.expire(self._logs.log(stream_id), RUNNING)
        await self._store.attempt("a lease", pipe.execute())

    async def release(self) -> None:
        """Leaves what this replica still produces to the others, at once. Raises StoreAway."""
        await self._store.attempt("a lease", self._store.client.delete(self._logs.lease(self._logs.replica)))

    async def watch(self, stream_ids: Sequence[str]) -> list[str]:
        """Tells their producers that these streams are being read here. Those whose logs are gone. Raises StoreAway."""
        if not stream_ids:
            return []
        pipe = self._store.client.pipeline(transaction=False)
        for stream_id in stream_ids:
            pipe.set(self._store.key("watched", stream_id), "", px=int(WATCHED * 1000))
            pipe.exists(self._logs.log(stream_id))
        replies = await self._store.attempt("readers", pipe.execute())
        return [stream_id for stream_id, there in zip(stream_ids, replies[1::2], strict=True) if not there]

    async def watched(self, stream_ids: Sequence[str]) -> set[str]:
        """Which of these are read on another replica. Raises StoreAway."""
        if not stream_ids:
            return set()
        keys = [self._store.key("watched", stream_id) for stream_id in stream_ids]
        found = await self._store.attempt("readers", self._store.client.mget(keys))
        return {stream_id for stream_id, mark in zip(stream_ids, found, strict=True) if mark is not None}

    async def lives(self, replica: str) -> bool:
        """Raises StoreAway."""
        return bool(await self._store.attempt("a lease", self._store.client.exists(self._logs.lease(replica))))

    async def find(self) -> list[tuple[str, str]]:
        """`(producer, stream id)` of whatever a dead producer left, and of all that is this replica's own."""
        return await self._store.attempt("looking for orphans", self._find())

    async def _find(self) -> list[tuple[str, str]]:
        client, mine = self._store.client, self._logs.replica
        producers = sorted(await client.smembers(self._producers))
        if not producers:
            return []
        async with client.pipeline(transaction=False) as pipe:
            pipe.mget([self._logs.lease(name) for name in producers])
            pipe.smembers(self._logs.streams(mine))
            leases, own = await pipe.execute()
        found = [(mine, stream_id) for stream_id in sorted(own)]
        for name, lease in zip(producers, leases, strict=True):
            if lease is None and name != mine:
                left = await client.smembers(self._logs.streams(name))
                found += [(name, stream_id) for stream_id in sorted(left)]
                if not left:
                    await self._forget(name)
        return found

    async def _forget(self, producer: str) -> None:
        """It has left nothing; unless it begins something at this very moment."""
        async with self._store.client.pipeline(transaction=True) as pipe:
            await pipe.watch(streams := self._logs.streams(producer))
            if not await pipe.exists(streams):
                pipe.multi()
                pipe.srem(self._producers, producer)
                with contextlib.suppress(Lost):
                    await pipe.execute()

    async def adopt(self, stream_id: str, producer: str, nonce: str) -> Adopted | None:
        """Takes over a stream that is listed as `producer`'s; None where there is nothing to take over, or it is no
        longer possible: it has ended, its producer lives, or somebody else was faster.

        Raises StoreAway: it may have been taken over then, and is found again among this replica's own.
        """
        try:
            return await self._store.attempt("an adoption", self._adopt(stream_id, producer, nonce))
        except (Lost, msgspec.MsgspecError):  # a newer Weir wrote it, and another such may take it over
            return None

    async def _adopt(self, stream_id: str, producer: str, nonce: str) -> Adopted | None:
        logs, mine = self._logs, self._logs.replica
        async with self._store.client.pipeline(transaction=True) as pipe:
            await pipe.watch(logs.log(stream_id))  # so that the old producer cannot write between a look and the claim
            try:
                tip = await logs.tip(stream_id)
            except WeirError:  # Redis has lost a part of it, which its readers see
                tip = None
            if tip is None or tip[0].ends:
                await self._tidy(stream_id, producer)
                return None
            last, opening = tip
            if opening.replica != mine and await self._store.client.exists(logs.lease(opening.replica)):
                if opening.replica != producer:  # the one who took it over did not come to say so
                    await self._store.client.smove(logs.streams(producer), logs.streams(opening.replica), stream_id)
                return None
            claim = self._store.key("adopt", stream_id)
            if not await self._store.client.set(claim, mine, nx=True, px=int(CLAIM * 1000)):
                return None
            after = last.place.seq or opening.after
            # Where this replica's own opening comes last, it did not hear that it had taken the stream over.
            same = opening.recoveries > 0 and opening.replica == mine and last.opening is not None
            mark = Opening(nonce=nonce, replica=mine, after=after, recoveries=opening.recoveries + (not same))
            pipe.multi()
            fields, place = {"opening": msgspec.json.encode(mark)}, Place(last.place.epoch + 1, 0)
            pipe.xadd(logs.log(stream_id), fields, id=str(place), nomkstream=True)
            if producer != mine:
                pipe.srem(logs.streams(producer), stream_id)
            for words in logs.owning(stream_id):
                pipe.execute_command(*words)
            await pipe.execute()
        return Adopted(last.place.epoch + 1, mark)

    async def _tidy(self, stream_id: str, producer: str) -> None:
        """It is over, and whoever ended it did not come to say so."""
        logs = self._logs
        _, about = await logs.head(stream_id)
        if about is None:
            await self._store.client.srem(logs.streams(producer), stream_id)
            await self._store.client.delete(self._store.key("asked", stream_id))
            return
        begun = await logs.read(stream_id, Place(1, 0))
        answered = any(answers(event) for entry in begun for event in entry.events)
        await logs.close(stream_id, producer, about.owner, about.once, answered=answered)
