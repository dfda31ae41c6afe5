"""A limit on waiting that costs a token two assignments and a look at the clock, not a timer."""

import asyncio
import math
from collections.abc import Callable

AGAIN = 1.0  # seconds until a task is cancelled once more, if it swallowed the first (`asyncio.wait_for` can, on 3.11)


class Deadline:
    """Interrupts a task that waits for too long, or that has been told to stop.

    Around each wait: `expect(seconds)`, then `received()`. The one timer is left where it was armed; when it fires
    early, it is armed again for what is left. A wait that ends in an exception asks `interrupted()` whether that
    came from here, and `cancelled()` whether somebody else wants the task to end. While `excused` says so, a wait
    that takes too long begins anew instead.
    """

    def __init__(self, excused: Callable[[], bool] = lambda: False) -> None:
        self._excused = excused
        self._patience = 0.0
        self._loop = asyncio.get_running_loop()
        self._total = math.inf  # moves on while nobody waits
        self._due: float | None = None
        self._left_off = 0.0
        self._task: asyncio.Task[object] | None = None
        self._before = 0  # cancels that the task had taken before it waited here
        self._ours = 0  # cancels by this deadline, not taken back yet
        self._timer: asyncio.TimerHandle | None = None
        self.fired = False
        self.stopped: str | None = None  # why it was told to stop

    def restart(self, total: float) -> None:
        """From now on all waits together may take `total` seconds."""
        self._total = self._loop.time() + total
        self._left_off = 0.0
        self.fired = False

    def expect(self, seconds: float) -> None:
        """The current task waits from now on, for at most `seconds`. Raises CancelledError if told to stop before."""
        task, now = asyncio.current_task(self._loop), self._loop.time()
        if task is not self._task:
            self._task, self._before = task, task.cancelling() if task else 0
        if self.stopped is not None:
            raise asyncio.CancelledError
        if self._left_off:
            self._total += now - self._left_off
        self._patience = seconds
        self._due = min(now + seconds, self._total)
        if self._timer is None or self._timer.when() > self._due:
            self._arm(self._due)

    def received(self) -> None:
        """What was waited for has come."""
        self._due = None
        self._left_off = self._loop.time()
        if self._ours:  # swallowed on the way: it came in time after all
            self._take_back()
            self.fired = False

    def stop(self, reason: str) -> None:
        """Ends the wait, now or as soon as there is one."""
        if self.stopped is None:
            self.stopped = reason
            if self._due is not None:
                self._interrupt()

    def go_on(self) -> None:
        """What it was told to stop for has been dealt with."""
        self.stopped = None

    def interrupted(self) -> bool:
        """Called when a wait ended in an exception: whether because of this deadline, and of nobody else."""
        self._due = None
        self._take_back()
        return (self.fired or self.stopped is not None) and not self.cancelled()

    def cancelled(self) -> bool:
        """Whether somebody else has cancelled the current task since it waits here."""
        task = asyncio.current_task(self._loop)
        return task is not None and task.cancelling() > self._before

    def close(self) -> None:
        self._due = None
        self._take_back()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._task = None

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._due is None:
            return
        if self._loop.time() >= self._due and self.stopped is None and self._excused():
            self._due = self._loop.time() + self._patience
        if self._loop.time() < self._due and not self._ours:
            self._arm(self._due)
        else:
            self.fired = self.fired or self.stopped is None
            self._interrupt()

    def _interrupt(self) -> None:
        if self._task is not None:
            self._ours += 1
            self._task.cancel()
            self._arm(self._loop.time() + AGAIN)

    def _take_back(self) -> None:
        while self._ours and self._task is not None:
            self._ours -= 1
            self._task.uncancel()
