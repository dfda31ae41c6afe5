"""One reader of a durable stream: all of its log, in order, from its beginning to its end."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import msgspec

from proxy.durable.feed import PATIENCE, PAUSE, Feed
from proxy.durable.feeds import Feeds
from proxy.errors import Stopped, StoreAway, WeirError
from proxy.events import Abort, Error, Event
from proxy.journey import Journey
from proxy.position import START, Position
from proxy.record import NOWHERE, Entry, Place, gone, regressed, unreadable
from proxy.state.stream_log import About, LogStore

log = logging.getLogger(__name__)


class Reader:
    """Reads a log from its beginning, for an encoder has to know all of it; the client gets what comes after `after`.

    `at` is the position of the event that was given last. Nothing is kept for a slow reader: one that has fallen behind
    the feed reads the log itself, page by page.
    """

    def __init__(self, stream_id: str, about: About, logs: LogStore, feeds: Feeds, request_id: str, after: Position):
        self.id = stream_id
        self.about = about
        self.after = after
        self.at = START
        self.journey = Journey(request_id, about.heading.model)
        self._logs = logs
        self._feeds = feeds
        self._feed: Feed | None = None
        self._producers: Journey | None = None  # the journey of what is produced here
        self._entry: Place = NOWHERE  # of the last entry that was read
        self._nonce = ""  # of its epoch

    @property
    def position(self) -> str:
        return str(self.at) if self.at != START else ""

    def has_had(self, event: Event) -> bool:
        return self.after.covers(event.seq)

    def stop(self, reason: str) -> None:
        """Ends the reading; the stream goes on."""
        self.journey.stopped = self.journey.stopped or reason
        if self._feed is not None:
            self._feed.tell()

    def headers(self) -> dict[str, str]:
        """Who answers, and after how many attempts: that is known where the stream is produced."""
        told = self._producers.headers() if self._producers is not None else {}
        return {**self.journey.headers(), **told, "x-request-id": self.journey.id, "x-weir-stream-id": self.id}

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncGenerator[Event, None]]:
        """Everything in the log, and what comes, up to the stream's end; leaving the block ends the reading only.

        Raises, before the first event, what kept the stream from beginning; WeirError (409) if the log has lost
        anything, StoreAway if Redis was away for too long.
        """
        try:
            async with aclosing(self._read()) as events:
                yield events
        finally:
            self._leave()
            journey = self.journey
            log.info("request %s read stream %s up to %s, bytes=%d", journey.id, self.id, self.at, journey.bytes)

    async def _read(self) -> AsyncGenerator[Event, None]:
        while True:
            for entry in await self._next():
                self._follows(entry)
                if ends := entry.ends:
                    self._reaches(entry.place.seq)
                for event in entry.events:
                    self._goes_to(event)
                    yield event
                if ends:
                    return

    async def _next(self) -> list[Entry]:
        """The next entries: from the feed, if it reaches back so far, else from the log; waits for them at the end."""
        while True:
            if self.journey.stopped is not None:
                raise Stopped(self.journey.stopped)
            if self._feed is not None and self._feed.retired:
                self._leave()
            feed = self._feed = self._feed or self._feeds.find(self.id)
            entries = None
            if feed is not None:
                self._producers = feed.journey or self._producers
                entries = feed.since(self._entry)
            if entries is None or (not entries and self.at.seq < self.after.seq):  # what the client saw elsewhere
                entries = await self._page()
                if feed is not None and not entries:
                    raise regressed()  # somebody has seen more
            if entries:
                return entries
            self._reaches(self.at.seq)
            if feed is None:  # somebody else may have begun to follow it meanwhile, or to produce it
                self._feed = self._feeds.find(self.id) or self._feeds.follow(self.id, self._entry)
            elif feed.failed is not None:
                raise feed.failed
            else:
                await feed.news()

    async def _page(self) -> list[Entry]:
        """What the log has after the last entry that was read."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while True:
            try:
                found = await self._logs.page(self.id, self._entry)
                break
            except StoreAway:
                if self.journey.stopped is not None or loop.time() > until:
                    raise
                await asyncio.sleep(PAUSE)
            except msgspec.MsgspecError:
                raise unreadable() from None
        if not found and self._entry == NOWHERE:
            raise gone(self.id)
        return found

    def _follows(self, entry: Entry) -> None:
        """Raises WeirError (409) if anything is missing between the last entry and this one."""
        seq = self.at.seq
        if entry.opening is not None:
            if entry.opening.after != seq:
                raise regressed()
            self._nonce = entry.opening.nonce
        elif entry.place.epoch != self._entry.epoch or entry.events[0].seq != seq + 1:
            raise regressed()
        self._entry = entry.place

    def _goes_to(self, event: Event) -> None:
        """Raises WeirError (409) if the position to read on from is not the one that the log has there."""
        place = Position(self._entry.epoch, event.seq, self._nonce)
        if event.seq == self.after.seq and place != self.after._replace(part=0):
            raise regressed()
        self.at = place
        if event.seq == 1:
            self.journey.provider = event.source or "none"
            if self.after == START:
                self._began(event)

    def _reaches(self, last: int) -> None:
        """Raises WeirError (409) if the client has read further than event `last`: the rest has been lost since."""
        if last < self.after.seq:
            raise regressed()

    def _began(self, first: Event) -> None:
        """Raises what kept the stream from beginning."""
        if isinstance(first, Error):
            known = self._feed.failure if self._feed is not None else None
            raise known or WeirError(first.message, status=first.status, code=first.code)
        if isinstance(first, Abort):
            raise Stopped(first.reason)

    def _leave(self) -> None:
        if self._feed is not None:
            self._feeds.detach(self.id, self._feed)
            self._feed = None
