"""A monitor of your own, complete: it counts and times every stream, and says so in the log now and then.

Put a file like this on PYTHONPATH and name it under `plugins` in providers.yaml:

    plugins: [plugins.stopwatch]

A monitor is told of each stream when it begins and when it is over, and has no hand in it. It hears of the streams of
its own process only; `/providers/health` adds up those of all replicas.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable

from proxy import Journey, Monitor, Registry

# Below `proxy`, so that WEIR_LOG_LEVEL counts for it too.
log = logging.getLogger("proxy.plugins.stopwatch")

PAUSE = 60.0  # seconds between two summaries


class Lap:
    """What one provider did so far; times in seconds, added up."""

    streams = finished = answered = 0
    seconds = first_token = 0.0

    def __str__(self) -> str:
        first = f", first token after {self.first_token / self.answered:.2f} s" if self.answered else ""
        return f"{self.finished} of {self.streams} finished, {self.seconds / self.streams:.2f} s each{first}"


class Stopwatch(Monitor):
    """`laps` is by provider. `clock` is a parameter, so that a test need not wait for a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.running = 0
        self.laps: defaultdict[str, Lap] = defaultdict(Lap)
        self._clock = clock
        self._said = clock() - PAUSE

    def began(self, journey: Journey) -> None:
        self.running += 1

    def ended(self, journey: Journey) -> None:
        """It is over, one way or the other. This is called in the event loop: count, and let go."""
        self.running -= 1
        for part in journey.branches or [journey]:  # where several sources answer one request, each has a branch
            lap = self.laps[part.provider]
            lap.streams += 1
            lap.finished += part.end == "finish"
            lap.seconds += journey.seconds
            if part.first_token is not None:
                lap.answered += 1
                lap.first_token += part.first_token
        if (now := self._clock()) - self._said >= PAUSE:
            self._said = now
            log.info("%s", str(self))

    def __str__(self) -> str:
        return "; ".join([f"{self.running} running", *(f"{name}: {lap}" for name, lap in sorted(self.laps.items()))])


def register(registry: Registry) -> None:
    registry.add_monitor(Stopwatch())
