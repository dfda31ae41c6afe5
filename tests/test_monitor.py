"""What a monitor need not override does nothing. What it is told is in tests/test_pipeline.py."""

import pytest

from proxy.journey import Journey
from proxy.monitor import Monitor

pytestmark = pytest.mark.anyio


async def test_a_monitor_that_overrides_nothing_hears_nothing() -> None:
    monitor, journey = Monitor(), Journey("r1", "m")
    monitor.began(journey)
    monitor.ended(journey)
    assert journey.end == "unfinished"
