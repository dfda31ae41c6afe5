"""Group commit: one task writes what all streams of this replica have to say.

A batch leaves as soon as the last one is acknowledged; what comes meanwhile is the next one, and of each stream at most
one entry is in it. So a lonely event waits for nobody, and many share the price of a round trip.
"""

import asyncio
import logging

from proxy.durable.feed import PAUSE
from proxy.durable.log import StreamLog
from proxy.errors import StoreAway
from proxy.state.stream_log import LogStore, Outcome

log = logging.getLogger(__name__)


class Writer:
    """Run with `run`, as one task; `wake` tells it of a log that has something to write."""

    def __init__(self, logs: LogStore):
        self._logs = logs
        self._todo: dict[StreamLog, None] = {}
        self._loop = asyncio.get_running_loop()
        self._called = asyncio.Event()

    def wake(self, it: StreamLog) -> None:
        self._todo[it] = None
        self._called.set()

    async def run(self) -> None:
        while True:
            await self._called.wait()
            self._called.clear()
            todo, self._todo = list(self._todo), {}
            try:
                await self._turn(todo)
            except Exception:  # every stream of this replica waits here
                log.exception("writing to the logs of durable streams failed")
                self._todo |= dict.fromkeys(todo)
                self._called.set()
                await asyncio.sleep(PAUSE)

    async def _turn(self, todo: list[StreamLog]) -> None:
        await self._look([it for it in todo if it.unsure])
        await self._send([it for it in todo if not it.unsure])
        stuck = [it for it in todo if it.unsure]
        for it in stuck:
            self.wake(it)
            if it.is_stuck(self._loop.time()):
                it.give_up(StoreAway("a durable stream"))
        if stuck and len(stuck) == len(self._todo):
            await asyncio.sleep(PAUSE)

    async def _look(self, unsure: list[StreamLog]) -> None:
        """Finds out what became of batches about which nothing was heard."""
        if not unsure:
            return
        try:
            tips = await self._logs.tips([it.id for it in unsure])
        except StoreAway:
            return
        for it, tip in zip(unsure, tips, strict=True):
            it.saw(tip)

    async def _send(self, ready: list[StreamLog]) -> None:
        flying = [(it, batch) for it in ready if (batch := it.next_batch()) is not None]
        if not flying:
            return
        outcomes = await self._logs.append([batch for _, batch in flying])
        now = self._loop.time()
        for (it, _), outcome in zip(flying, outcomes, strict=True):
            if outcome is not Outcome.LANDED:
                log.debug("writing to the log of %s: %s", it.id, outcome.value)
            if it.heard(outcome, now):
                self.wake(it)
