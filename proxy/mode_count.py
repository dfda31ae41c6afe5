"""Counts the streams of each mode, in the figures that replicas share."""

from proxy.errors import Kind
from proxy.journey import Journey
from proxy.monitor import Monitor
from proxy.state.stats import StatsStore
from proxy.tally import Outcome

MODE = "~mode:"  # how a mode's name among the figures begins; no provider's can


class ModeCount(Monitor):
    """A monitor like anybody's."""

    def __init__(self, stats: StatsStore):
        self._stats = stats

    def began(self, journey: Journey) -> None:
        self._stats.meter(MODE + journey.mode).active += 1

    def ended(self, journey: Journey) -> None:
        meter = self._stats.meter(MODE + journey.mode)
        meter.active -= 1
        usage = journey.usage
        outcome = Outcome(
            seconds=journey.seconds,
            failure=_failure(journey.end),
            cancelled=journey.end in ("abort", "unfinished"),
            first_token=journey.first_token,
            input_tokens=usage.input_tokens if usage else 0,
            output_tokens=usage.output_tokens if usage else 0,
        )
        meter.record(outcome)


def _failure(end: str) -> Kind | None:
    name, _, kind = end.partition(":")
    if name != "error":
        return None
    return Kind(kind) if kind in set(Kind) else Kind.SERVER
