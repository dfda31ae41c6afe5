"""Once a second: a sign of life, and a look at what others left, and at what nobody reads."""

import asyncio
import logging

from proxy.durable.feeds import Feeds
from proxy.durable.produced import Produced
from proxy.errors import StoreAway
from proxy.record import gone
from proxy.state.stream_log import LEASE, LogStore

log = logging.getLogger(__name__)

BEAT = 1.0  # seconds


class Beat:
    """Run with `run`, as one task. `leaving`: what others left is no longer taken over."""

    def __init__(self, logs: LogStore, feeds: Feeds, produced: Produced):
        self.leaving = False
        self._logs = logs
        self._orphanage = produced.orphanage
        self._feeds = feeds
        self._produced = produced
        self._loop = asyncio.get_running_loop()
        self._beaten = self._adopts_from = self._loop.time()

    async def run(self) -> None:
        warned = False
        while True:
            await asyncio.sleep(BEAT)
            try:
                if not warned:
                    await self._warn()
                    warned = True
                await self._renew()
                for stream_id in await self._orphanage.watch(list(self._feeds.followed)):
                    self._feeds.lose(stream_id, gone(stream_id))
                await self._let_the_unread_go()
                if self._loop.time() >= self._adopts_from:
                    await self._take_over()
                self._beaten = self._loop.time()
            except StoreAway:
                continue
            except Exception:
                log.exception("looking after durable streams failed")

    async def _warn(self) -> None:
        """Says where Redis cannot keep the promise. Raises StoreAway."""
        if why := await self._logs.store.may_forget():
            log.warning("Redis may drop registrations and durable streams: %s; it should be noeviction", why)

    async def _renew(self) -> None:
        """Says that this replica lives. Where it was asleep for longer than others wait, it looks which of its streams
        are theirs by now: one whose provider is silent would write nothing that Redis could refuse.
        """
        missed = self._loop.time() - self._beaten
        if missed > 2 * BEAT:  # for the others, too, perhaps: they are given time to say that they live
            self._adopts_from = self._loop.time() + 2 * BEAT
        if running := [it.id for it in self._produced]:
            await self._orphanage.renew(running)
        for it in self._produced if missed > LEASE else ():
            last = await self._logs.last(it.id)
            if last is not None and last[0].place.epoch > it.epoch:
                it.lose(None)

    async def _let_the_unread_go(self) -> None:
        """Cancels streams that nobody has read, on any replica, for as long as their requests allow; for a beat at
        least, since who asked for one comes to read it only once it has begun.
        """
        now = self._loop.time()
        unread = [it for it in self._produced if not it.feed.readers and not it.is_closed]
        watched = await self._orphanage.watched([it.id for it in unread])
        for it in self._produced:
            if it.feed.readers or it.id in watched:
                it.unread_since = now
            elif not it.is_closed and now - it.unread_since >= max(it.about.detached, BEAT):
                it.stop(f"nobody has read it for {it.about.detached:g} s")

    async def _take_over(self) -> None:
        """Adopts what others have left, but for no longer than a beat: this replica's own lease has to be renewed."""
        until = self._loop.time() + BEAT
        for producer, stream_id in await self._orphanage.find():
            if self.leaving or self._loop.time() > until:
                return
            if stream_id not in self._produced:
                await self._produced.adopt(producer, stream_id)
