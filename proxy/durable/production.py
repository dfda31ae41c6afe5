"""One durable stream being produced here: what its pipeline says goes into its log, whoever reads it."""

import logging
from collections.abc import AsyncGenerator

from proxy.durable.log import StreamLog
from proxy.errors import INTERNAL, WeirError
from proxy.events import Error, Event, Recovered, ending
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.stream import Stream
from proxy.request import ChatRequest

log = logging.getLogger(__name__)


class Production:
    """Run with `run`; then the log has its end, or is no longer this replica's to write.

    From the first moment the log can stop its stream, and readers know who is asked.
    """

    def __init__(self, pipeline: Pipeline, log: StreamLog, request: ChatRequest, stream: Stream):
        self.log = log
        self.stream = stream
        self._pipeline = pipeline
        self._request = request
        log.stop, log.feed.journey = stream.stop, stream.journey

    async def run(self) -> None:
        written = self.log
        if written.lost:  # before it began
            return
        try:
            async with self._pipeline.answer(self._request, self.stream) as events:
                await self._write(events)
        except WeirError as error:
            end = ending(error)
            if not written.seq:
                written.feed.failure = error
            elif isinstance(end, Error):
                written.add(Recovered(how="failed", reason=error.message))
            written.add(end)
        except Exception:
            log.exception("stream %s failed", written.id)
            written.add(ending(WeirError(INTERNAL)))
        await written.finished

    async def _write(self, events: AsyncGenerator[Event, None]) -> None:
        written = self.log
        async for event in events:
            written.add(event)
            if written.is_full:
                told = "the stream has reached the size to which it is kept (WEIR_STREAM_CAP)"
                written.add(Error(message=told, code="stream_too_long"))
            if written.is_crowded:
                await written.room()
            if written.is_closed:
                return  # leaving ends the provider's call
