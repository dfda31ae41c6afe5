"""What a reader may say back, and what he is told."""

import asyncio
from typing import Any

import pytest

from proxy.errors import RequestError, StoreAway, WeirError
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

    def __init__(
        self,
        *script: Any,
        owner: str = "me",
        replica: str = "here",
        producer: WeirError | None = None,
    ):
        self.adapter = scripted("a", *script, models=["m"])
        self.house = House(self.adapter)
        self.stream = Stream(Journey("r1", "m"), replica, owner)
        self.producer = producer
        self.controls = Controls(self.house.pipeline, self.house.store, replica, self.nobody)
        self.events: list[Event] = []
        self.task = asyncio.create_task(self._read())

    async def nobody(self, stream_id: str, owner: str) -> None:
        """No stream is durable here."""
        if self.producer is not None:
            raise self.producer

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


async def nobody(stream_id: str, owner: str) -> None:
    """No stream is durable here."""


async def test_what_does_not_take_effect_in_time_is_told() -> None:
    """The marker passes when the reader takes it; this one does not read."""
    house = House(scripted("a", [Start(), A, HANG], [HANG], models=["m"]))
    stream = Stream(Journey("r1", "m"), "here", "me")
    async with house.pipeline.answer(request(), stream):
        controls = Controls(house.pipeline, house.store, "here", nobody)
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


class TakenOver:
    """A stream that one replica began, and that another one produces by now; controls are sent at a third."""

    def __init__(self, producer: str | WeirError | None):
        self.now = Running([Start(), A, HANG], replica="heir")
        self.now.stream.id = self.id = "first-1"
        self.first = House(scripted("a", says("a"), models=["m"]))
        self.producer = producer
        self.controls = Controls(House().pipeline, self.first.store, "third", self.who)
        self.old = Controls(self.first.pipeline, self.first.store, "first", self.who)

    async def who(self, stream_id: str, owner: str) -> str | None:
        assert (stream_id, owner) == (self.id, "me")
        if isinstance(self.producer, WeirError):
            raise self.producer
        return self.producer

    async def pause(self, controls: Controls) -> dict[str, Any]:
        """Sent there; the bus between the replicas is as fast as a call."""
        replicas = {"third": self.controls, "first": self.old, "heir": self.now.controls}

        async def send(replica: str, message: dict[str, Any], _: float) -> dict[str, Any]:
            return await replicas[replica]._act(message)

        for each in replicas.values():
            each.bus.send = send  # type: ignore[method-assign,assignment]
        await idle()
        try:
            return await controls.send(self.id, "me", Control.read("pause", {}))
        finally:
            self.now.stream.stop("over")
            await self.now.task

    async def slept(self) -> None:
        """The first producer was only asleep, and has ended what it produced."""
        stream = Stream(Journey("r1", "m"), "first", "me")
        stream.id, stream.durable = self.id, True
        async with self.first.pipeline.answer(request(), stream) as events:
            async for _ in events:
                pass


async def test_a_stream_that_was_taken_over_is_found_where_it_is_produced_now() -> None:
    it = TakenOver("heir")
    assert await it.pause(it.controls) == {"stream_id": it.id, "action": "pause", "position": 2}


@pytest.mark.parametrize("where", ["controls", "old"])
async def test_that_its_first_producer_has_ended_it_means_nothing(where: str) -> None:
    it = TakenOver("heir")
    await it.slept()
    assert (await it.pause(getattr(it, where)))["position"] == 2


@pytest.mark.parametrize(
    ("producer", "status"),
    [
        (None, 404),
        (RequestError("the stream has ended", status=409, code="ended"), 409),
        (WeirError("it died", status=503, code="producer_gone"), 503),
    ],
    ids=["no such stream", "ended", "nobody produces it"],
)
async def test_a_stream_that_nobody_produces_cannot_be_controlled(producer: WeirError | None, status: int) -> None:
    it = TakenOver(producer)
    with pytest.raises(WeirError) as caught:
        await it.pause(it.controls)
    assert caught.value.status == status


async def test_that_a_stream_which_is_not_durable_has_ended_is_known_without_redis() -> None:
    it = Running(says("a"), producer=StoreAway("a durable stream"))
    await it.task
    with pytest.raises(RequestError) as caught:
        await it.send("pause")
    assert caught.value.status == 409
