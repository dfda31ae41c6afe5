"""Several sources, the clock and the reader's pace, made one stream. What a mode is given to read."""

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Protocol, Self

from proxy.errors import INTERNAL
from proxy.events import ENDS, Abort, Error, Event, Finish, Quiet, SourceEnd, Usage
from proxy.tasks import end

log = logging.getLogger(__name__)

MOST_EVENTS = 256  # of one source, waiting to be read
MOST_SIZE = 64 * 1024  # likewise, as `size_of` counts
CLOSING = 1.5  # seconds that sources may take to let go of their upstreams


class Timer(Protocol):
    def when(self) -> float: ...

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What a merge goes by."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer: ...


class LoopClock:
    """The running loop's, in whole milliseconds: uvloop rounds its timers to those, and one that came early would be
    set anew until its time has come.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def time(self) -> float:
        return self._loop.time()

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        return self._loop.call_at(math.ceil(when * 1000) / 1000, callback)


class Merge:
    """Reads sources ahead of the reader, each in a task of its own, and no further than the bounds above.

    `async for event in merge` gives what came, in order of arrival, until the stream's one end. A mode that wants
    another order asks who is `ready` and takes from whom it likes with `take`, and waits with `wait`. All times are in
    seconds, as `time()` tells it.

    Of several sources (`labelled`), each event says whose it is, each source's end is a SourceEnd, and the stream
    ends after the last of them: in Finish if any source did.
    """

    def __init__(self, sources: Mapping[str, AsyncGenerator[Event, None]], clock: Clock | None = None):
        assert sources, "a stream comes from somewhere"
        self._sources = sources
        self.labelled = len(sources) > 1
        self._loop = asyncio.get_running_loop()
        self._clock: Clock = clock or LoopClock()
        self._queues = {name: _Queue() for name in sources}
        self._arrived = 0
        self._ends: dict[str, Event] = {}
        self._last: Event | None = None  # the stream's own end, until it is read
        self._reader: asyncio.Future[None] | None = None
        self._sleeper: asyncio.Future[None] | None = None
        self._due: float | None = None
        self._timer: Timer | None = None
        self._quiet = False
        self._over = False
        self._pumps: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        self._pumps = {name: asyncio.create_task(self._pump(name, it)) for name, it in self._sources.items()}
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for name, pump in self._pumps.items():
            if name not in self._ends:  # the others are closing by themselves
                pump.cancel()
        await asyncio.wait(self._pumps.values(), timeout=CLOSING)
        await end(*self._pumps.values())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """What came first. Raises StopAsyncIteration after the end."""
        while not self._over:
            if self._quiet:
                self._quiet = False
                return Quiet()
            for name, queue in self._queues.items():
                if queue.events:
                    return self.take(self.oldest(self.ready()) if self.labelled else name)
            if self._last is not None:
                self._over = True
                return self._last
            await self._news()
        raise StopAsyncIteration

    def time(self) -> float:
        return self._clock.time()

    def ready(self) -> list[str]:
        """The sources of which something waits to be read."""
        return [name for name, queue in self._queues.items() if queue.events]

    def oldest(self, ready: Sequence[str]) -> str:
        """Of sources that are ready, the one whose next event has waited longest."""
        return min(ready, key=lambda name: self._queues[name].events[0][0]) if len(ready) > 1 else ready[0]

    def take(self, source: str) -> Event:
        """The next event of a source that is ready."""
        queue = self._queues[source]
        _, event = queue.events.popleft()
        queue.size -= size_of(event)
        if queue.room is not None and queue.has_room():
            if not queue.room.done():
                queue.room.set_result(None)
            queue.room = None
        return event

    async def wait(self) -> Event | None:
        """Returns when a source is ready (None), the time asked for has come (Quiet), or the stream ends (its end)."""
        while not self._quiet and not self.ready():
            if self._last is not None:
                self._over = True
                return self._last
            await self._news()
        if self._quiet:
            self._quiet = False
            return Quiet()
        return None

    def wake_at(self, due: float | None) -> None:
        """Asks for a Quiet at `due`, instead of any asked for before. None: no more.

        A timer that is already running is left alone, so that this costs next to nothing an event.
        """
        self._due = due
        if due is not None and (self._timer is None or self._timer.when() >= due + 0.001):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._clock.call_at(due, self._wake)

    async def until(self, due: float) -> None:
        """Lets time pass and reads nothing, so that the sources are held back; over early if the stream breaks."""
        while self.time() < due and (self._last is None or isinstance(self._last, Finish)):
            self._sleeper = self._loop.create_future()
            timer = self._clock.call_at(due, self._rouse)
            try:
                await self._sleeper
            finally:
                timer.cancel()
                self._sleeper = None

    @property
    def starved(self) -> bool:
        """The reader waits for the sources, rather than they for the reader."""
        return self._reader is not None

    def _wake(self) -> None:
        self._timer = None
        if self._due is None:
            return
        if self.time() < self._due:
            self._timer = self._clock.call_at(self._due, self._wake)
        else:
            self._quiet = True
            self._tell()

    def _rouse(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def _news(self) -> None:
        self._reader = self._loop.create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _tell(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _pump(self, name: str, events: AsyncGenerator[Event, None]) -> None:
        try:
            self._ended(name, await self._read(name, events))
        finally:  # told first, for this may take a while
            try:
                await events.aclose()
            except Exception:
                log.exception("closing source %s", name)

    async def _read(self, name: str, events: AsyncGenerator[Event, None]) -> Event:
        """Passes on what a source says, and returns its end."""
        try:
            async for event in events:
                if type(event) in ENDS:
                    return event
                await self._put(name, event)
        except (Exception, asyncio.CancelledError) as error:  # a bug: a source tells its failures as events
            if isinstance(error, asyncio.CancelledError) and _cancelled():
                raise
            log.exception("source %s failed", name)
            return Error(message=f"{name}: {INTERNAL}")
        return Error(message=f"{name}: the stream ended without an end")

    async def _put(self, name: str, event: Event) -> None:
        event.source = name
        queue = self._queues[name]
        self._add(queue, event)
        if not queue.has_room():
            queue.room = self._loop.create_future()
            await queue.room

    def _add(self, queue: "_Queue", event: Event) -> None:
        self._arrived += 1
        queue.events.append((self._arrived, event))
        queue.size += size_of(event)
        self._tell()

    def _ended(self, name: str, event: Event) -> None:
        self._ends[name] = event
        if not self.labelled:
            event.source = name
            self._last = event
        else:
            self._add(self._queues[name], source_end(name, event))
            if len(self._ends) == len(self._sources):
                self._last = end_of([*self._ends.values()])
        self._tell()
        if self._last is not None:
            self._rouse()


class _Queue:
    """What one source has said and nobody has read. `room`: what its pump waits for."""

    def __init__(self) -> None:
        self.events: deque[tuple[int, Event]] = deque()
        self.size = 0
        self.room: asyncio.Future[None] | None = None

    def has_room(self) -> bool:
        return len(self.events) < MOST_EVENTS and self.size < MOST_SIZE


def _cancelled() -> bool:
    """Whether somebody has cancelled this task: a source may raise the like by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def size_of(event: Event) -> int:
    """What an event takes to keep: its characters, or the bytes of the chunk it came in."""
    return len(event.raw) if event.raw is not None else len(getattr(event, "content", ""))


def source_end(name: str, event: Event) -> SourceEnd:
    """How one of several sources says that it has ended."""
    if isinstance(event, Finish):
        return SourceEnd(reason="finish", usage=event.usage, source=name)
    if isinstance(event, Error):
        return SourceEnd(reason="error", message=event.message, code=event.code, source=name)
    assert isinstance(event, Abort)
    return SourceEnd(reason="abort", message=event.reason, source=name)


def end_of(ends: list[Event]) -> Event:
    """The end of a stream whose sources ended so: complete if one of them is."""
    finishes = [event for event in ends if isinstance(event, Finish)]
    if not finishes:
        aborts = [event for event in ends if isinstance(event, Abort)]
        errors = [event.message for event in ends if isinstance(event, Error)]
        return aborts[0] if aborts else Error(message="every source failed: " + "; ".join(errors))
    counted = [event.usage for event in finishes if event.usage]
    if not counted:
        return Finish()
    used = Usage(
        input_tokens=sum(usage.input_tokens for usage in counted),
        output_tokens=sum(usage.output_tokens for usage in counted),
    )
    return Finish(usage=used)
