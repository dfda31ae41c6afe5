"""Where readers here are fed from: this replica's own streams, and those of others, for which one read waits.

The read waits for all streams that are followed, and for one of this replica's own: an entry in that one wakes it up,
to be asked anew about other streams.
"""

import asyncio

import msgspec

from proxy.durable.feed import PATIENCE, PAUSE, Feed
from proxy.errors import StoreAway, WeirError
from proxy.record import Place, unreadable
from proxy.state.stream_log import LogStore
from proxy.tasks import end


class Feeds:
    """Run with `run`, as one task. A feed that is not this replica's own is followed while somebody reads it."""

    def __init__(self, logs: LogStore):
        self._logs = logs
        self._feeds: dict[str, Feed] = {}
        self._loop = asyncio.get_running_loop()
        self._called = asyncio.Event()
        self._away_since: float | None = None
        self._closed: WeirError | None = None  # why nothing is read here any more

    def find(self, stream_id: str) -> Feed | None:
        """The stream's feed with one more reader, if there is one here."""
        feed = self._feeds.get(stream_id)
        if feed is not None:
            feed.readers += 1
        return feed

    def follow(self, stream_id: str, tip: Place) -> Feed:
        """A feed for a stream that another replica produces, and whose log has been read up to `tip`."""
        feed = self._feeds[stream_id] = Feed(tip)
        feed.readers = 1
        if self._closed is not None:
            feed.fail(self._closed)
        self._called.set()
        return feed

    def detach(self, stream_id: str, feed: Feed) -> None:
        feed.readers -= 1
        if not feed.readers and not feed.own and self._feeds.get(stream_id) is feed:
            del self._feeds[stream_id]

    def begin(self, stream_id: str, feed: Feed) -> None:
        """From now on the stream is produced here, and the writer fills `feed`."""
        if old := self._feeds.get(stream_id):
            old.retire()
        self._feeds[stream_id] = feed
        feed.own = True

    def over(self, stream_id: str, feed: Feed) -> None:
        """The stream is not produced here any more. Unless it has ended, its readers look elsewhere."""
        if self._feeds.get(stream_id) is feed:
            del self._feeds[stream_id]
        if not feed.ended:
            feed.retire()

    def close(self, why: WeirError) -> None:
        """Nothing is read here any more; that is told to who does. What ends by itself is still told to its readers."""
        self._closed = why
        for feed in self.followed.values():
            feed.fail(why)

    def lose(self, stream_id: str, why: WeirError) -> None:
        """Nothing can come of a stream that is followed: no read of a log that is gone would ever return."""
        if feed := self.followed.get(stream_id):
            feed.fail(why)

    @property
    def followed(self) -> dict[str, Feed]:
        """Those of other replicas' streams that are still to be filled."""
        return {
            stream_id: feed
            for stream_id, feed in self._feeds.items()
            if not feed.own and not feed.ended and feed.failed is None
        }

    async def run(self) -> None:
        waker = asyncio.create_task(self._wake())
        try:
            while True:
                while not (followed := self.followed):
                    self._away_since = None
                    self._called.clear()
                    await self._called.wait()
                await self._turn(followed)
        finally:
            await end(waker)

    async def _turn(self, followed: dict[str, Feed]) -> None:
        try:
            found = await self._logs.news({stream_id: feed.tip for stream_id, feed in followed.items()})
        except StoreAway:
            await self._away(followed)
            return
        self._away_since = None
        for stream_id, entries in found.items():
            try:
                for entry in entries:
                    followed[stream_id].push(entry)
            except msgspec.MsgspecError:
                followed[stream_id].fail(unreadable())

    async def _wake(self) -> None:
        """Ends the read whenever there is another stream to follow."""
        while True:
            await self._called.wait()
            self._called.clear()
            try:
                await self._logs.wake()
            except StoreAway:
                await asyncio.sleep(PAUSE)
                self._called.set()

    async def _away(self, followed: dict[str, Feed]) -> None:
        now = self._loop.time()
        self._away_since = self._away_since or now
        if now - self._away_since >= PATIENCE:
            for feed in followed.values():
                feed.fail(StoreAway("a durable stream"))
        await asyncio.sleep(PAUSE)
