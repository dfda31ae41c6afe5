"""The example for monitors: every stream is counted and timed, whatever becomes of it, and nothing of it is touched."""

import logging

import pytest

from plugins.stopwatch import PAUSE, Stopwatch
from proxy.errors import Kind, ProviderError
from proxy.events import TextDelta
from proxy.journey import Journey
from proxy.registry import Registry
from proxy.testing import Played, says, scripted
from tests.journeys import Clock, House

pytestmark = pytest.mark.anyio

CUT: Played = [TextDelta(content="a"), ProviderError(Kind.CUT, "cut")]


async def told(stopwatch: Stopwatch, provider: str, end: str, seconds: float, first_token: float | None) -> None:
    """One stream from its beginning to its end."""
    clock = Clock(0.0)
    journey = Journey("r1", "m", clock=clock)
    stopwatch.began(journey)
    journey.asks(provider)
    if first_token is not None:
        clock.now = first_token
        journey.commits()
    clock.now, journey.end = seconds, end
    journey.close()
    stopwatch.ended(journey)


async def test_streams_are_counted_and_timed_by_provider() -> None:
    stopwatch = Stopwatch()
    assert str(stopwatch) == "0 running"
    await told(stopwatch, "b", "finish", seconds=3.0, first_token=0.5)
    await told(stopwatch, "b", "error:cut", seconds=1.0, first_token=1.0)
    await told(stopwatch, "a", "error:connect", seconds=0.5, first_token=None)
    stopwatch.began(Journey("r2", "m"))
    assert str(stopwatch) == (
        "1 running; a: 0 of 1 finished, 0.50 s each; b: 1 of 2 finished, 2.00 s each, first token after 0.75 s"
    )


async def test_a_summary_goes_to_the_log_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "proxy.plugins")
    clock = Clock(0.0)
    stopwatch = Stopwatch(clock)
    for now in (0.0, 1.0, PAUSE - 0.1, PAUSE, PAUSE + 1):
        clock.now = now
        await told(stopwatch, "a", "finish", seconds=1.0, first_token=None)
    assert caplog.messages == [
        "0 running; a: 1 of 1 finished, 1.00 s each",
        "0 running; a: 4 of 4 finished, 1.00 s each",
    ]


async def test_through_the_whole_pipeline() -> None:
    house, stopwatch = House(scripted("a", says("a"), CUT, models=["m"]), scripted("b", says("b"))), Stopwatch()
    house.registry.add_monitor(stopwatch)
    assert (await house.ask()).journey.end == "finish"
    await house.ask()
    await house.ask("nobody")
    await house.ask(weir={"providers": ["a", "b"], "mode": "interleaved"})
    counted = {name: (lap.finished, lap.streams, lap.answered) for name, lap in stopwatch.laps.items()}
    assert counted == {"a": (1, 3, 3), "b": (1, 1, 1), "none": (0, 1, 0)}
    assert stopwatch.running == 0


def test_naming_it_brings_the_monitor() -> None:
    (monitor,) = Registry.with_plugins(["plugins.stopwatch"]).monitors
    assert isinstance(monitor, Stopwatch)
