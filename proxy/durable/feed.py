"""The newest of a log that Redis has acknowledged, in memory: what its readers on this replica are fed from."""

import asyncio
from collections import deque

from proxy.errors import WeirError
from proxy.journey import Journey
from proxy.record import Entry, Place

PATIENCE = 10.0  # seconds that a stream waits for Redis, and its readers; then it ends, marked
PAUSE = 0.1  # seconds between attempts, while it is away
MOST_ENTRIES = 256  # that are kept for readers who are almost as fast as the stream; the others read the log itself
MOST_SIZE = 64 * 1024  # bytes in the log, likewise


class Feed:
    """One for all readers of a stream on this replica. `tip` is the place of the last entry known to be in the log.

    It is filled by whoever knows: the writer, where the stream is produced here (then it is this replica's `own`, and
    `journey` is its producer's), or else `Feeds`. `failed`: why nothing more comes, though the stream has not ended;
    `failure`: why it did not even begin. `retired`: another one is filled in its place, for which readers are to look.
    """

    def __init__(self, tip: Place):
        self.tip = tip
        self.own = False
        self.journey: Journey | None = None
        self.readers = 0
        self.ended = False
        self.retired = False
        self.failed: WeirError | None = None
        self.failure: WeirError | None = None
        self._base = tip  # all entries after this one are here
        self._entries: deque[Entry] = deque()
        self._size = 0
        self._waiting: list[asyncio.Future[None]] = []

    def push(self, entry: Entry) -> None:
        """Takes what the log has next."""
        self.tip = entry.place
        self.ended = self.ended or entry.ends
        self._entries.append(entry)
        self._size += entry.size
        while len(self._entries) > MOST_ENTRIES or (self._size > MOST_SIZE and len(self._entries) > 1):
            oldest = self._entries.popleft()
            self._size -= oldest.size
            self._base = oldest.place
        self.tell()

    def since(self, place: Place) -> list[Entry] | None:
        """The entries after the one at `place`; None if not all of them are here any more."""
        if place < self._base:
            return None
        found = []
        for entry in reversed(self._entries):
            if entry.place <= place:
                break
            found.append(entry)
        return found[::-1]

    def fail(self, why: WeirError) -> None:
        """Nothing more will come."""
        self.failed = self.failed or why
        self.tell()

    def retire(self) -> None:
        """It is not filled any more."""
        self.retired = True
        self.tell()

    async def news(self) -> None:
        """Returns when there may be more, or something else to know."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def tell(self) -> None:
        """Wakes up all who wait."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)
