"""What is counted about a provider. Tallies add up: over processes, over time, and over the dead."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Self

import msgspec

from proxy.errors import Kind

_GROWTH = math.log(1.1)  # one bucket is 10 % wider than the one below: a percentile is off by at most 5 %


class Histogram(msgspec.Struct, omit_defaults=True):
    """Durations in logarithmic buckets. `buckets`: bucket -> how many; bucket b holds 1.1^(b-1) to 1.1^b ms."""

    buckets: dict[int, int] = {}
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        bucket = _bucket_of(seconds)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.seconds += seconds

    def merge(self, other: Self, sign: int = 1) -> None:
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + sign * count
        self.seconds += sign * other.seconds

    def figures(self) -> dict[str, float | None]:
        """Average and percentiles in milliseconds; None where nothing was measured."""
        count = sum(self.buckets.values())
        average = round(self.seconds * 1000 / count, 2) if count else None
        return {"average": average, **{f"p{q}": self._percentile(q * count / 100) for q in (50, 95, 99)}}

    def _percentile(self, rank: float) -> float | None:
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank > 0:
                return round(math.exp((bucket - 0.5) * _GROWTH), 2)
        return None


@lru_cache(maxsize=2)  # a request's two durations go into several histograms each
def _bucket_of(seconds: float) -> int:
    return math.ceil(math.log(max(seconds * 1000, 0.01)) / _GROWTH)


class Outcome(msgspec.Struct):
    """How one attempt at a provider ended. `failure` is None for a success; times are in seconds."""

    seconds: float
    failure: Kind | None = None
    cancelled: bool = False
    first_token: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0


class Tally(msgspec.Struct, omit_defaults=True):
    """Counts of attempts that have ended. `generating`: seconds between first token and end, of the successes.

    `others` counts, by name, what else happens: ratings by readers, messages on sockets.
    """

    requests: int = 0
    successes: int = 0
    cancelled: int = 0
    failures: dict[str, int] = {}
    input_tokens: int = 0
    output_tokens: int = 0
    generating: float = 0.0
    response: Histogram = msgspec.field(default_factory=Histogram)
    first_token: Histogram = msgspec.field(default_factory=Histogram)
    others: dict[str, int] = {}

    def count(self, outcome: Outcome) -> None:
        self.requests += 1
        self.input_tokens += outcome.input_tokens
        self.output_tokens += outcome.output_tokens
        if outcome.first_token is not None:
            self.first_token.add(outcome.first_token)
        if outcome.cancelled:
            self.cancelled += 1
        elif outcome.failure is not None:
            self.failures[outcome.failure] = self.failures.get(outcome.failure, 0) + 1
        else:
            self.successes += 1
            self.response.add(outcome.seconds)
            self.generating += outcome.seconds - (outcome.first_token or 0.0)

    def merge(self, other: Self, sign: int = 1) -> None:
        """Adds `other`, or takes it away again (`sign` -1)."""
        for name in ("requests", "successes", "cancelled", "input_tokens", "output_tokens", "generating"):
            setattr(self, name, getattr(self, name) + sign * getattr(other, name))
        for kind, count in other.failures.items():
            self.failures[kind] = self.failures.get(kind, 0) + sign * count
        for name, count in other.others.items():
            self.others[name] = self.others.get(name, 0) + sign * count
        self.response.merge(other.response, sign)
        self.first_token.merge(other.first_token, sign)

    @property
    def error_rate(self) -> float:
        """Failures per request, 0 to 1. What the client did wrong is no failure of the provider."""
        failed = sum(self.failures.values()) - self.failures.get(Kind.REJECTED, 0)
        return failed / self.requests if self.requests else 0.0

    def figures(self) -> dict[str, object]:
        """As `/providers/health` shows it; times in milliseconds."""
        speed = self.output_tokens / self.generating if self.generating > 0 else None
        return {
            "requests": self.requests,
            "successes": self.successes,
            "cancelled": self.cancelled,
            "failures": {kind: count for kind, count in self.failures.items() if count},
            "error_rate": round(self.error_rate, 4),
            "response_ms": self.response.figures(),
            "first_token_ms": self.first_token.figures(),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "tokens_per_second": round(speed, 1) if speed else None,
        }


class LastError(msgspec.Struct):
    """`at` is in seconds since 1970; the message is redacted."""

    message: str
    kind: str
    at: float


WINDOWS = {"minute": (10, 6), "hour": (60, 60)}  # name -> seconds a slot, slots
_SHORTEST = min(width for width, _ in WINDOWS.values())  # of which all the others are whole multiples


class Meter:
    """One process's measurements of one provider: in total, and in slots of time for the last minute and hour."""

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self.active = 0  # streams that run now
        self.last_error: LastError | None = None
        self.tallies: dict[str, Tally] = {"total": Tally()}
        self.changed: set[str] = set()  # names of tallies to be written to the store

    def record(self, outcome: Outcome, error: str = "") -> None:
        """Counts the end of an attempt; `error` is its failure, in words, redacted."""
        now = self._clock()
        for name in slots(now):
            self._tally(name).count(outcome)
            self.changed.add(name)
        if outcome.failure is not None:
            self.last_error = LastError(message=error, kind=outcome.failure, at=now)

    def add(self, name: str, count: int = 1) -> None:
        """Counts something that is no attempt."""
        for slot in slots(self._clock()):
            others = self._tally(slot).others
            others[name] = others.get(name, 0) + count
            self.changed.add(slot)

    def _tally(self, slot: str) -> Tally:
        if slot not in self.tallies:
            self.tallies[slot] = Tally()
        return self.tallies[slot]

    def forget_the_past(self) -> list[str]:
        """Drops the slots that have left every window; their names."""
        old = [name for name in self.tallies if is_past(name, self._clock())]
        for name in old:
            del self.tallies[name]
            self.changed.discard(name)
        return old


def slots(now: float) -> Sequence[str]:
    """The names of the tallies that something happening at `now` belongs to: `total`, `minute:<n>`, `hour:<n>`."""
    return _slots(int(now // _SHORTEST))


@lru_cache(maxsize=2)
def _slots(shortest: int) -> Sequence[str]:
    widths = {window: width // _SHORTEST for window, (width, _) in WINDOWS.items()}
    return ["total", *(f"{window}:{shortest // width}" for window, width in widths.items())]


def window_of(slot: str) -> str:
    return slot.partition(":")[0]


def is_past(slot: str, now: float) -> bool:
    """Whether a slot lies before its window."""
    window, _, number = slot.partition(":")
    if window not in WINDOWS:
        return False
    width, count = WINDOWS[window]
    return int(number) <= now // width - count
