"""The streams that this replica produces: those it has begun, and those it has taken over."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator

import msgspec

from proxy.durable.feeds import Feeds
from proxy.durable.log import StreamLog
from proxy.durable.production import Production
from proxy.durable.recovery import Recovery
from proxy.errors import StoreAway, WeirError
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.stream import Stream
from proxy.record import Opening
from proxy.request import ChatRequest
from proxy.state.orphans import Orphanage
from proxy.state.stream_log import About, LogStore, Once
from proxy.tasks import end, keep

log = logging.getLogger(__name__)

ENDING = 1.5  # seconds that streams may take to let go of their providers


class Produced:
    """`cap` is the size in bytes of a log, `wake` tells the writer of one that has something to write."""

    def __init__(self, pipeline: Pipeline, logs: LogStore, feeds: Feeds, wake: Callable[[StreamLog], None], cap: int):
        self.orphanage = Orphanage(logs)
        self._pipeline = pipeline
        self._logs = logs
        self._feeds = feeds
        self._wake = wake
        self._cap = cap
        self._written: dict[str, StreamLog] = {}
        self._marking: set[str] = set()  # whose beginning or end is on its way into Redis
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost: WeirError | None = None

    def __iter__(self) -> Iterator[StreamLog]:
        return iter(list(self._written.values()))

    def __contains__(self, stream_id: str) -> bool:
        return stream_id in self._written or stream_id in self._marking

    async def begin(self, request: ChatRequest, stream: Stream, about: About, once: Once | None) -> str:
        """Begins to produce `stream`, and returns its id; that of an earlier one, where `once` was used for that.

        Raises RequestError, StoreAway.
        """
        opening = Opening(nonce=_nonce(), replica=self._logs.replica)
        asked = request.keep() if about.recovery != "fail" else None
        self._marking.add(stream.id)
        try:
            stream_id = await self._logs.begin(stream.id, about, opening, asked=asked, once=once)
            if stream_id == stream.id:
                stream.durable = True
                written = self._log(stream.id, about, 1, opening)
                keep(self._tasks, self._produce(Production(self._pipeline, written, request, stream)))
        finally:
            self._marking.discard(stream.id)
        return stream_id

    async def adopt(self, producer: str, stream_id: str) -> None:
        """Takes over what `producer` left, if that is still to be had. Raises StoreAway."""
        try:
            _, about = await self._logs.known(stream_id)
        except msgspec.MsgspecError:  # a newer Weir began it, and another such may take it over
            return
        adopted = await self.orphanage.adopt(stream_id, producer, _nonce())
        if adopted is None or about is None:
            return
        log.warning("took over stream %s, whose producer %s is gone", stream_id, producer)
        written = self._log(stream_id, about, adopted.epoch, adopted.opening)
        keep(self._tasks, self._recover(written, adopted.opening))

    def stop(self, reason: str) -> None:
        """Ends them all, marked."""
        for it in self:
            it.stop(reason)

    def lose(self, why: WeirError) -> None:
        """Nothing more is written, nor begun; readers here are told `why`."""
        self._lost = why
        for it in self:
            it.lose(why)

    async def wait(self, patience: float) -> None:
        """Returns when all have ended, or after so many seconds."""
        if self._tasks and patience > 0:
            await asyncio.wait(self._tasks, timeout=patience)

    async def close(self) -> None:
        """Waits for those that were told to end."""
        await self.wait(ENDING)
        await end(*self._tasks)

    def _log(self, stream_id: str, about: About, epoch: int, opening: Opening) -> StreamLog:
        written = StreamLog(stream_id, about, epoch, opening, wake=self._wake, cap=self._cap)
        self._written[stream_id] = written
        self._feeds.begin(stream_id, written.feed)
        if self._lost is not None:  # it was on its way into Redis when everything was left to others
            written.lose(self._lost)
        return written

    async def _produce(self, production: Production) -> None:
        try:
            await production.run()
        finally:
            await self._over(production.log)

    async def _recover(self, written: StreamLog, opening: Opening) -> None:
        try:
            production = await Recovery(self._logs, self._pipeline, written, opening).begin()
            if production is not None:
                await production.run()
            await written.finished
        except StoreAway:
            log.warning("stream %s could not be read; it is looked at again", written.id)
        finally:
            await self._over(written)

    async def _over(self, written: StreamLog) -> None:
        """It is no longer written here: it has ended, or is another's."""
        if self._written.get(written.id) is written:
            del self._written[written.id]
        self._feeds.over(written.id, written.feed)
        if written.feed.ended:
            about = written.about
            self._marking.add(written.id)
            try:
                await self._logs.ended(written.id, about.owner, about.once, answered=written.answered)
            except StoreAway:
                log.debug("stream %s has ended; that is noted when Redis is back", written.id)  # by whoever finds it
            finally:
                self._marking.discard(written.id)


def _nonce() -> str:
    return secrets.token_hex(4)
