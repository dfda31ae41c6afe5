"""What a reader may say back, and what he is told."""

import asyncio
from typing import Any

import pytest

from proxy.errors import RequestError, WeirError
from proxy.events import Abort, Event, Finish, Start, Steered, TextDelta
from proxy.journey import Journey
from proxy.pipeline.control import HALF, Control, Controls
from proxy.pipeline.stream import Stream
from proxy.testing import says, scripted, text_of
from tests.journeys import HANG, House, idle, request, skip

pytestmark = pytest.mark.anyio

A = TextDelta(content="a")


@pytest.mark.parametrize(
    ("action", "data", "param"),
    [
        ("steer", {}, "instruction"),
        ("steer", {"instruction": "  "}, "instruction"),
        ("pause", {"seconds": 0}, "seconds"),
        ("pause", {"seconds": "long"}, "seconds"),
        ("feedback", {}, "rating"),
        ("feedback", {"rating": "best"}, "rating"),
        ("feedback", {"rating": "up", "position": -1}, "position"),
        ("cancel", {"nonsense": 1}, "nonsense"),
    ],
)
def test_a_wrong_control_names_its_field(action: str, data: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        Control.read(action, data)
    assert caught.value.param == param


class Running:
    """A stream that somebody reads, and its controls."""

    def __init__(self, *script: Any, owner: str = "me"):
        self.adapter = scripted("a", *script, models=["m"])
        self.house = House(self.adapter)
        self.stream = Stream(Journey("r1", "m"), "here", owner)
        self.controls = Controls(self.house.pipeline, self.house.store, "here")
        self.events: list[Event] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with self.house.pipeline.answer(request(), self.stream) as events:
            async for event in events:
                self.events.append(event)

    async def send(self, action: str, owner: str = "me", **data: Any) -> dict[str, Any]:
        return await self.controls.send(self.stream.id, owner, Control.read(action, data))


async def test_a_cancelled_stream_says_so_and_where() -> None:
    it = Running([Start(), A, HANG])
    await idle()
    assert await it.send("cancel", reason="enough") == {
        "stream_id": it.stream.id,
        "action": "cancel",
        "position": 3,
    }
    await it.task
    assert it.events[-1].seq == 3
    assert isinstance(it.events[-1], Abort)
    assert it.events[-1].reason == "enough"


async def test_a_pause_and_a_resume() -> None:
    gate = asyncio.Event()
    it = Running([Start(), A, gate, *says("b")[1:]])
    await idle()
    assert (await it.send("pause"))["position"] == 2
    gate.set()
    await idle()
    assert len(it.events) == 2, "something came during the pause"
    assert (await it.send("resume"))["position"] == 2
    await it.task
    assert text_of(it.events) == "ab"


async def test_steering() -> None:
    it = Running([Start(), A, HANG], says("b"))
    await idle()
    assert (await it.send("steer", instruction="in French"))["position"] == 3
    await it.task
    assert isinstance(it.events[2], Steered)
    assert text_of(it.events) == "ab"


async def test_feedback_is_counted_for_the_provider_also_after_the_end() -> None:
    it = Running(says("a", "b"))
    await it.task
    assert (await it.send("feedback", rating="up", position=3))["position"] == 3
    assert (await it.send("feedback", rating="down", position=100))["position"] == it.stream.position
    assert (await it.send("feedback", remark="hm"))["position"] == it.stream.position
    assert it.house["a"].meter.tallies["total"].others == {"rated_up": 1, "rated_down": 1}


async def test_the_end_cannot_be_controlled() -> None:
    it = Running(says("a"))
    await it.task
    for action, data in [("cancel", {}), ("pause", {}), ("resume", {}), ("steer", {"instruction": "x"})]:
        with pytest.raises(RequestError) as caught:
            await it.send(action, **data)
        assert caught.value.status == 409, f"{action} of what has ended"


async def test_a_foreign_stream_is_as_good_as_none() -> None:
    it = Running([Start(), A, HANG])
    await idle()
    told = []
    foreign = [(it.stream.id, "you"), (it.stream.id, ""), ("here-none", "me"), ("gone-x", "me"), ("", "")]
    for stream_id, owner in foreign:
        with pytest.raises(WeirError) as caught:
            await it.controls.send(stream_id, owner, Control.read("cancel", {}))
        told.append((caught.value.status, caught.value.message.replace(repr(stream_id), "it")))
    assert set(told) == {(404, "there is no stream it")}, "a foreign stream can be told from none"
    it.stream.stop("over")
    await it.task


async def test_what_does_not_take_effect_in_time_is_told() -> None:
    """The marker passes when the reader takes it; this one does not read."""
    house = House(scripted("a", [Start(), A, HANG], [HANG], models=["m"]))
    stream = Stream(Journey("r1", "m"), "here", "me")
    async with house.pipeline.answer(request(), stream):
        controls = Controls(house.pipeline, house.store, "here")
        sending = asyncio.create_task(controls.send(stream.id, "me", Control.read("steer", {"instruction": "x"})))
        await idle()
        skip(HALF + 0.1)
        with pytest.raises(RequestError) as caught:
            await sending
        assert caught.value.status == 504


async def test_a_stream_with_the_last_word_ends_as_it_would() -> None:
    it = Running(says("a"))
    await it.task
    assert isinstance(it.events[-1], Finish)
