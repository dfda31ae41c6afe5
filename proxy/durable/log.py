"""A stream's log, as its producer has it: what waits to be written, what is on its way, and what is there."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from proxy.durable.feed import PATIENCE, Feed
from proxy.errors import WeirError
from proxy.events import ENDS, Error, Event
from proxy.record import NOWHERE, Draft, Entry, Opening, Place, answers, gone, regressed
from proxy.recorder import Recorder
from proxy.state.stream_log import About, Append, Outcome

MOST_WAITING = 64 * 1024  # bytes, before the provider is held back
TAKEN_OVER = "another replica has taken the stream over"


class StreamLog:
    """One epoch of one log, written by this replica alone. Positions are given here, so that there is no gap.

    At most one batch is on its way at a time, and is sent again as it was until it is known what became of it.
    `lost`: another replica has taken the stream over, or the log is gone; nothing more will be written.
    """

    def __init__(
        self,
        stream_id: str,
        about: About,
        epoch: int,
        opening: Opening,
        *,
        wake: Callable[["StreamLog"], None],
        cap: int,
    ):
        self.id = stream_id
        self.about = about
        self.epoch = epoch
        self.feed = _feed(epoch, opening)
        self.stop: Callable[[str], None] = lambda why: None  # ends the stream that is written here
        self.seq = opening.after  # of the last event that was given a position
        self.acknowledged = opening.after
        self.answered = opening.after > 0  # as far as it is acknowledged
        self.lost = False
        self.unread_since = asyncio.get_running_loop().time()
        self.finished = asyncio.get_running_loop().create_future()  # nothing is left to be written
        self._wake = wake
        self._cap = cap
        self._bytes = 0
        self._several = about.heading.several
        self._recorders: defaultdict[str, Recorder] = defaultdict(Recorder)
        self._waiting = Draft()
        self._ending = False  # its end has been given to it
        self._flying: tuple[Append, list[Event]] | None = None
        self._room: asyncio.Future[None] | None = None
        self.unsure = False  # what is flying may be in the log already: that must be looked at before anything is sent
        self._stuck_since: float | None = None

    def add(self, event: Event) -> None:
        """Puts an event at the log's end; `room` says when there may be more. What comes after an end is left out.

        Raises UnicodeError, TypeError for what is no JSON: that is the producer's affair, not the writer's.
        """
        if self.is_closed:
            return
        event = self._recorders[event.source if self._several else ""].bare(event)
        self._waiting.add(event)  # raises for what cannot be written, before it has a position
        self.seq += 1
        event.seq = self.seq
        self._ending = type(event) in ENDS
        if self._flying is None:
            self._wake(self)

    def take_up(self, facts: dict[str, Any], size: int) -> None:
        """What was written before this epoch: what the first chunk said of them all, and how many bytes there are."""
        self._recorders[""].know(facts)
        self._bytes += size

    @property
    def is_crowded(self) -> bool:
        return self._waiting.size > MOST_WAITING and not self._ending

    @property
    def is_closed(self) -> bool:
        """Whether anything may be added."""
        return self._ending or self.lost

    @property
    def is_full(self) -> bool:
        """It may grow no more: it is to end, marked. A log is never trimmed."""
        return self._bytes > self._cap

    async def room(self) -> None:
        """Returns when more may be added."""
        while self.is_crowded and not self.lost:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def give_up(self, why: WeirError) -> None:
        """Redis has been away for too long: nobody is told what waits, and the log ends here once it can be written.

        Readers are told at once, by `why`, for nothing that has a position can be shown to them.
        """
        flying = self._flying[1] if self._flying else []
        self._waiting = Draft()
        self._ending = bool(flying) and type(flying[-1]) in ENDS
        self.seq = flying[-1].seq if flying else self.acknowledged
        self.add(Error(message=why.message, code=why.code))  # unless its end is on its way
        self.feed.fail(why)
        self._give_room()
        self.stop(why.message)

    # What follows is for the writer.

    def next_batch(self) -> Append | None:
        """What is to be sent now; None if there is nothing."""
        if self._flying is None and (events := self._waiting.events):
            source, array = self._waiting.write()
            self._waiting = Draft()
            self._bytes += len(array)
            self._flying = Append(self.id, Place(self.epoch, events[-1].seq), source, array), events
            self._give_room()
        return self._flying[0] if self._flying else None

    def heard(self, outcome: Outcome, now: float) -> bool:
        """What became of the batch that was sent; whether there is more to do."""
        if self.lost:
            return False
        if outcome is Outcome.LANDED:
            self._landed()
            return bool(self._waiting.events)
        if outcome is Outcome.GONE:
            self.lose(gone(self.id))
            return False
        self.unsure = True
        self._stuck_since = self._stuck_since or now
        return True

    def saw(self, tip: Place | None) -> bool:
        """Where the log's last entry stands, when nobody knew of a batch; whether there is more to do."""
        if tip is None or self._flying is None:
            return self.heard(Outcome.GONE, 0.0)
        if tip.epoch > self.epoch:
            self.lose(None)
            return False
        if tip == self._flying[0].place:
            self._landed()
            return bool(self._waiting.events)
        if tip != self.feed.tip:
            self.lose(regressed())
            return False
        self.unsure = False  # it never arrived: it is sent again, as it was
        return True

    def is_stuck(self, now: float) -> bool:
        return self._stuck_since is not None and now - self._stuck_since >= PATIENCE and self.feed.failed is None

    def lose(self, why: WeirError | None) -> None:
        """Nothing of this is written any more. Readers go on from the log itself, or are told `why` they cannot."""
        self.lost = True
        self._flying, self._waiting, self.unsure = None, Draft(), False
        if why is not None:
            self.feed.fail(why)
        self._finish()
        self._give_room()
        self.stop(why.message if why else TAKEN_OVER)

    def _landed(self) -> None:
        assert self._flying is not None
        batch, events = self._flying
        self._flying, self._stuck_since, self.unsure = None, None, False
        self.acknowledged = batch.place.seq
        self.answered = self.answered or any(map(answers, events))
        self.feed.push(Entry(batch.place, None, events, len(batch.array)))
        if self.feed.ended:
            self._finish()

    def _finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)

    def _give_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None


def _feed(epoch: int, opening: Opening) -> Feed:
    """One that holds a new log from its beginning; of one that was taken over the past is in Redis alone."""
    feed = Feed(NOWHERE if epoch == 1 else Place(epoch, 0))
    if epoch == 1:
        feed.push(Entry(Place(1, 0), opening, []))
    return feed
