"""Durable streams, as the rest of the house sees them: begun, read, looked at, and left to others at the end."""

import asyncio
import contextlib
from typing import Any

from proxy.durable.beat import Beat
from proxy.durable.feeds import Feeds
from proxy.durable.produced import Produced
from proxy.durable.reader import Reader
from proxy.durable.writer import Writer
from proxy.errors import RequestError, Stopped, StoreAway, WeirError
from proxy.pipeline.control import unknown
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.stream import SHUTDOWN, Stream
from proxy.position import START, Position
from proxy.record import gone
from proxy.request import ChatRequest
from proxy.settings import Settings
from proxy.state.sessions import SessionRef
from proxy.state.store import Store
from proxy.state.stream_log import About, LogStore, Once
from proxy.tasks import end

LEFT = f"{SHUTDOWN}; the stream goes on: read it from another replica"


class DurableStreams:
    """Started with `start`, closed in any case."""

    def __init__(self, pipeline: Pipeline, store: Store, replica: str, settings: Settings):
        self.logs = LogStore(store, replica, settings.stream_ttl)
        self._pipeline = pipeline
        self._feeds = Feeds(self.logs)
        self._writer = Writer(self.logs)
        self._produced = Produced(pipeline, self.logs, self._feeds, self._writer.wake, settings.stream_cap)
        self._beat = Beat(self.logs, self._feeds, self._produced)
        self._loop = asyncio.get_running_loop()
        self._leave_by = 0.0
        self._released: asyncio.Task[None] | None = None
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        work = (self._writer.run(), self._feeds.run(), self._beat.run())
        self._background = [asyncio.create_task(each) for each in work]

    def leave(self, grace: float) -> None:
        """This replica is about to stop: it takes nothing over, and what runs may go on for so many seconds."""
        self._beat.leaving = True
        self._leave_by = self._loop.time() + grace

    async def close(self) -> None:
        """Lets streams end for as long as they may, and leaves those that do not to other replicas."""
        await self._produced.wait(self._leave_by - self._loop.time())
        self.release()
        await self._produced.close()
        if self._released is not None:
            await self._released
            await self._release()  # what was on its way into Redis meanwhile has said that this replica lives
        await end(*self._background)

    @property
    def released(self) -> bool:
        return self._released is not None

    def release(self) -> None:
        """Nothing more is produced or read here. What is left goes to other replicas, which look for it at once; where
        there are none, for the store is in this process, it ends.
        """
        self._beat.leaving = True
        if self.logs.store.embedded:
            self._produced.stop(SHUTDOWN)
        else:
            self._produced.lose(Stopped(LEFT))
        self._feeds.close(Stopped(LEFT))
        if self._released is None:
            self._released = asyncio.create_task(self._release())

    async def _release(self) -> None:
        with contextlib.suppress(StoreAway):
            await self._produced.orphanage.release()

    async def begin(
        self, request: ChatRequest, stream: Stream, message_id: str = "", once: Once | None = None
    ) -> Reader:
        """A stream that is being produced from now on, and its first reader; or one of the stream that `once` was used
        for. Raises RequestError, StoreAway, Stopped.
        """
        self._pipeline.check(request)
        if self.released:
            raise Stopped(SHUTDOWN)
        options = request.options
        about = About(
            owner=stream.owner,
            heading=request.heading(message_id),
            detached=options.detached,
            recovery=options.recovery,
            choices=request.choices,
            session=SessionRef.of(request.owner, options.session_id) if options.session_id is not None else None,
            once=once.key if once else None,
        )
        stream_id = await self._produced.begin(request, stream, about, once)
        if stream_id != stream.id:
            return await self.read(stream_id, stream.owner, request.id)
        return Reader(stream_id, about, self.logs, self._feeds, request.id, START)

    async def read(self, stream_id: str, owner: str, request_id: str, after: Position = START) -> Reader:
        """A reader of a stream of `owner`'s. Raises RequestError: 404 if there never was one, 410 if its time is over.

        That position `after` is in the log shows when it is read.
        """
        about = await self._about(stream_id, owner)
        return Reader(stream_id, about, self.logs, self._feeds, request_id, after)

    async def answering(self, session: SessionRef, owner: str, request_id: str) -> Reader | None:
        """A reader of what is being answered in a session; None if nothing is."""
        stream_id = await self.logs.answering(session)
        last = await self.logs.last(stream_id) if stream_id else None
        if stream_id is None or last is None or last[0].ends:
            return None
        return await self.read(stream_id, owner, request_id)

    async def status(self, stream_id: str, owner: str) -> dict[str, Any]:
        """What is known of a stream without reading it. Raises RequestError, as `read`."""
        about = await self._about(stream_id, owner)
        last = await self.logs.last(stream_id)
        if last is None:
            raise gone(stream_id)
        tip, opening = last
        place, seq = tip.place, tip.place.seq or opening.after
        end = str(tip.events[-1].__struct_config__.tag) if tip.ends else None
        return {
            "id": stream_id,
            "model": about.heading.model,
            "created": about.heading.created,
            "state": "ended" if end else "running",
            "end": end,
            "seq": seq,
            "position": str(Position(place.epoch, seq, opening.nonce)) if place.seq else None,
            "recoveries": opening.recoveries,
        }

    async def producer(self, stream_id: str, owner: str) -> str | None:
        """The replica that produces a stream of `owner`'s now; None if there is no such stream.

        Raises WeirError: 409 where it has ended, 503 where its producer is gone and none has taken it over yet.
        """
        known, _ = await self.logs.known(stream_id)
        last = await self.logs.last(stream_id) if known == owner else None
        if last is None:
            return None
        tip, opening = last
        if tip.ends:
            raise RequestError(f"the stream has ended, at position {tip.place.seq}", status=409, code="ended")
        if opening.replica != self.logs.replica and not await self._produced.orphanage.lives(opening.replica):
            told = "the replica that produced this stream died, and another one is taking it over: try again"
            raise WeirError(told, status=503, code="producer_gone")
        return opening.replica

    async def _about(self, stream_id: str, owner: str) -> About:
        """Raises RequestError, as `read`."""
        known, about = await self.logs.known(stream_id)
        if known != owner:
            raise unknown(stream_id)
        if about is None:
            raise gone(stream_id)
        return about
