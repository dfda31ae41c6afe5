"""Names in the log whoever blocks the event loop: while it is blocked nobody is served, and nothing else would tell."""

import asyncio
import logging
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)

_paths = sysconfig.get_paths()
LIBRARIES = ("<frozen", *{_paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


@contextmanager
def watchdog(limit: float = 1.0) -> Iterator[None]:
    """Within the block, what keeps the running event loop for `limit` seconds or longer is named in the log, once.

    It costs the loop, and a thread, three wake-ups per `limit`.
    """
    watch = _Watch(limit)
    watch.begin()
    try:
        yield
    finally:
        watch.end()


class _Watch:
    """A timer in the loop that notes when the loop ran last, and a thread that looks whether that is long ago."""

    def __init__(self, limit: float):
        self._limit = limit
        self._pace = limit / 3  # seconds between two beats of the timer, and between two looks
        self._loop = asyncio.get_running_loop()
        self._loops_thread = threading.get_ident()
        self._beat = time.monotonic()  # when the loop ran last
        self._blamed = 0.0  # the beat after which somebody was named
        self._timer: asyncio.Handle = self._loop.call_soon(self._tick)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._timer.cancel()
        self._over.set()
        self._thread.join(timeout=1)  # it may be writing to a log that hangs

    def _tick(self) -> None:
        """In the loop: it runs."""
        now = time.monotonic()
        if self._blamed == self._beat:
            log.info("the event loop runs again; it was blocked for about %.1f s", now - self._beat - self._pace / 2)
        self._beat = now
        self._timer = self._loop.call_later(self._pace, self._tick)

    def _watch(self) -> None:
        """In the thread: the loop should have run within the timer's pace."""
        while not self._over.wait(self._pace):
            beat = self._beat
            if time.monotonic() - beat > self._pace + self._limit and self._blamed != beat:
                where = _culprit(sys._current_frames()[self._loops_thread])
                if self._beat == beat:  # otherwise the loop runs again, and that was somebody else
                    self._blamed = beat
                    log.warning("the event loop has been blocked for over %g s, by %s", self._limit, where)


def _culprit(inner: FrameType) -> str:
    """The innermost frame that is neither Python's nor an installed package's, and what it is waiting in."""
    frame: FrameType | None = inner
    while frame is not None and not _ours(frame):
        frame = frame.f_back
    return _place(inner) if frame in (inner, None) else f"{_place(frame)} (in {_place(inner)})"


def _ours(frame: FrameType) -> bool:
    return not frame.f_code.co_filename.startswith(LIBRARIES)


def _place(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}, line {frame.f_lineno}"
