"""Each mode's streams are counted where the providers' are, so that replicas share that too."""

import pytest

from proxy.errors import Kind, ProviderError
from proxy.events import TextDelta
from proxy.mode_count import MODE, ModeCount
from proxy.state.stats import StatsStore
from proxy.testing import Played, says, scripted
from tests.journeys import House

pytestmark = pytest.mark.anyio


async def test_streams_are_counted_by_mode() -> None:
    cut: Played = [TextDelta(content="a"), ProviderError(Kind.CUT, "cut")]
    house = House(scripted("a", says("a", usage=(3, 1)), says("b"), cut, models=["m"]))
    stats = StatsStore(house.store)
    house.registry.add_monitor(ModeCount(stats))
    await house.ask()
    await house.ask(weir={"mode": "chunked"})
    await house.ask(weir={"mode": "chunked"})
    tallies = {name.removeprefix(MODE): meter.tallies["total"] for name, meter in stats.meters.items()}
    assert {name: tally.requests for name, tally in tallies.items()} == {"standard": 1, "chunked": 2}
    assert tallies["standard"].input_tokens == 3
    assert tallies["chunked"].failures == {Kind.CUT: 1}
    assert not any(meter.active for meter in stats.meters.values())


async def test_what_ends_without_an_answer_is_counted_too() -> None:
    house = House(scripted("a", [ProviderError(Kind.AUTH, "no")], models=["m"]))
    stats = StatsStore(house.store)
    house.registry.add_monitor(ModeCount(stats))
    await house.ask()
    assert stats.meter(f"{MODE}standard").tallies["total"].failures == {Kind.AUTH: 1}
    assert stats.meter(f"{MODE}standard").active == 0
