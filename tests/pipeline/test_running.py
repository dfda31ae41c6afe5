"""An answer that lives as long as its reader does."""

import pytest

from proxy.journey import Journey
from proxy.pipeline.running import Live, Running
from proxy.pipeline.stream import Stream
from proxy.testing import says, scripted
from tests.journeys import HANG, House, request

pytestmark = pytest.mark.anyio


def live(*script: object) -> tuple[House, Running]:
    house = House(scripted("a", [*script], models=["m"]))  # type: ignore[list-item]
    return house, Live(house.pipeline, request(), Stream(Journey("r1", "m"), "here"))


async def test_what_is_said_is_read_and_cannot_be_come_back_to() -> None:
    _, it = live(*says("a"))
    async with it.events() as events:
        got = [it.position async for _ in events]
    assert set(got) == {""}
    assert len(got) == 4
    assert it.headers() == {
        "x-request-id": "r1",
        "x-weir-provider": "a",
        "x-weir-attempts": "1",
        "x-weir-stream-id": it.id,
    }
    assert (it.id.partition("-")[0], it.journey.id) == ("here", "r1")


async def test_who_leaves_ends_the_providers_call() -> None:
    house, it = live(*says("a")[:2], HANG)
    async with it.events() as events:
        await anext(events)
        assert it.id in house.pipeline.live
    assert (house["a"].meter.active, it.id in house.pipeline.live) == (0, False)


async def test_told_to_stop_it_ends_marked() -> None:
    _, it = live(*says("a")[:2], HANG)
    async with it.events() as events:
        await anext(events)
        it.stop("enough")
        *_, last = [event async for event in events]
    assert str(last.__struct_config__.tag) == "abort"
