"""Every event goes out as it arrives."""

import pytest

from proxy.events import Quiet
from proxy.modes.standard import Standard
from proxy.testing import merged, play, says

pytestmark = pytest.mark.anyio


async def test_everything_goes_out_when_it_comes() -> None:
    start, *rest = said = says("a", "b")
    async with merged([start, 0.5, *rest]) as merge:
        got = [(merge.time(), event) async for event in Standard().generate(merge)]
    assert [event is its for (_, event), its in zip(got, said, strict=True)] == [True] * len(said)
    assert [time for time, _ in got] == [0.0, *[0.5] * len(rest)]


async def test_a_quiet_that_somebody_asked_for_is_not_passed_on() -> None:
    async with merged([0.5, *says("a")]) as merge:
        merge.wake_at(0.1)
        assert not any(isinstance(event, Quiet) for event in await play(Standard().generate(merge)))
