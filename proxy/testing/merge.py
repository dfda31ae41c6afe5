"""A merge of scripted sources, on a clock of its own: for tests of modes, without a wait and without a sleep."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

from proxy.events import Event
from proxy.merge import Merge
from proxy.tasks import end

Script = Iterable[Event | Exception | asyncio.Event | float]  # a number: so many seconds pass

_ROUNDS = 10  # of the event loop, after which everybody has done what they can


class ScriptedClock:
    """Seconds from 0 on. They pass only when nobody has anything to do, and then at once, up to the next alarm."""

    def __init__(self) -> None:
        self._now = 0.0
        self._alarms: list[tuple[float, int, _Alarm]] = []
        self._numbers = itertools.count()
        self._ticking: asyncio.Task[None] | None = None

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], object], /) -> "_Alarm":
        alarm = _Alarm(when, callback)
        heapq.heappush(self._alarms, (when, next(self._numbers), alarm))
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._tick())
        return alarm

    async def sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        self.call_at(self._now + seconds, over.set)
        await over.wait()

    async def stop(self) -> None:
        if self._ticking is not None:
            await end(self._ticking)

    async def _tick(self) -> None:
        while self._alarms:
            for _ in range(_ROUNDS):
                await asyncio.sleep(0)
            when, _, alarm = heapq.heappop(self._alarms)
            if not alarm.cancelled:
                self._now = max(self._now, when)
                alarm.callback()


class _Alarm:
    def __init__(self, when: float, callback: Callable[[], object]):
        self._when = when
        self.callback = callback
        self.cancelled = False

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self.cancelled = True


class ScriptedMerge(Merge):
    """Its sources play `scripts`, by name. Exceptions are raised, asyncio.Events waited for."""

    def __init__(self, scripts: Mapping[str, Script]):
        self.clock = ScriptedClock()
        super().__init__({name: self._played(script) for name, script in scripts.items()}, self.clock)

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        await self.clock.stop()

    async def _played(self, script: Script) -> AsyncGenerator[Event, None]:
        for step in script:
            if isinstance(step, Event):
                yield step
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, Exception):
                raise step
            else:
                await self.clock.sleep(step)


def merged(*scripts: Script, **named: Script) -> ScriptedMerge:
    """A merge to give a mode to read: of sources a, b, c ... or of sources with names.

    async with merged(says("Hello")) as merge:
        events = await play(Buffered().generate(merge))
    """
    return ScriptedMerge({**dict(zip("abcdefgh", scripts, strict=False)), **named})
