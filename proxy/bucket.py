"""A token bucket: how much of something may come, at once and in the long run."""

import time
from collections.abc import Callable


class Bucket:
    """Lets `burst` through at once, and `rate` a second for as long as one likes."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic):
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._filled = clock()

    def take(self, count: int = 1) -> bool:
        """Whether so many more may pass now."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < count:
            return False
        self._tokens -= count
        return True
