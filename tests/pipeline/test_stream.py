"""A stream's reader may stop it, hold it and turn it; the answer says where that happened."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from proxy.errors import RequestError
from proxy.events import Event, Finish, Steered, TextDelta
from proxy.journey import Journey
from proxy.pipeline.stream import LONGEST_PAUSE, Stream
from tests.journeys import idle, skip

pytestmark = pytest.mark.anyio


def stream() -> Stream:
    return Stream(Journey("r1", "m"), "replica")


class Reader:
    """Reads a stream in the background; `events` is what has come."""

    def __init__(self, stream: Stream, *events: Event, gate: asyncio.Event | None = None):
        self.events: list[Event] = []
        self._script = events
        self._gate = gate
        self.task = asyncio.create_task(self._read(stream))

    async def _read(self, stream: Stream) -> None:
        async for event in stream.paced(self._said()):
            self.events.append(event)

    async def _said(self) -> AsyncGenerator[Event, None]:
        for event in self._script:
            if self._gate is not None:
                await self._gate.wait()
            yield event


async def test_an_id_tells_which_replica_holds_it() -> None:
    one, two = stream(), stream()
    assert one.id.partition("-")[0] == "replica"
    assert one.id != two.id


async def test_each_event_gets_the_next_position() -> None:
    it = stream()
    reader = Reader(it, TextDelta(content="a"), TextDelta(content="b"), Finish())
    await reader.task
    assert [event.seq for event in reader.events] == [1, 2, 3]
    assert it.position == 3
    assert it.ended


async def test_nothing_passes_while_it_is_paused() -> None:
    it = stream()
    assert await it.pause() == 0
    reader = Reader(it, TextDelta(content="a"), Finish())
    await idle()
    assert reader.events == [], "the reader got something during a pause"
    assert await it.resume() == 0
    await reader.task
    assert len(reader.events) == 2


async def test_a_pause_ends_by_itself() -> None:
    it = stream()
    await it.pause(LONGEST_PAUSE)
    reader = Reader(it, Finish())
    await idle()
    assert reader.events == []
    skip(LONGEST_PAUSE + 1)
    await reader.task


async def test_the_last_of_several_pauses_counts() -> None:
    it = stream()
    await it.pause(1)
    await it.pause(100)
    reader = Reader(it, Finish())
    skip(50)
    await idle()
    assert reader.events == [], "the first pause ended the second"
    skip(51)
    await reader.task


async def test_a_cancel_waits_for_the_end_and_opens_the_gate() -> None:
    it = stream()
    await it.pause()
    reader = Reader(it, TextDelta(content="a"), Finish())
    assert await it.cancel("enough") == 2
    assert it.journey.stopped == "enough"
    await reader.task


async def test_steering_waits_for_its_marker() -> None:
    it, gate = stream(), asyncio.Event()
    reader = Reader(it, Steered(instruction="shorter"), Finish(), gate=gate)
    steering = asyncio.create_task(it.steer("shorter"))
    await idle()
    assert not steering.done()
    assert (it.instruction, it.steered) == ("shorter", 1)
    gate.set()
    assert await steering == 1, "the position is not that of the marker"
    await reader.task


async def test_steering_what_ends_first_came_too_late() -> None:
    it = stream()
    steering = asyncio.create_task(it.steer("shorter"))
    await idle()
    await Reader(it, Finish()).task
    it.close()
    with pytest.raises(RequestError, match="has ended") as caught:
        await steering
    assert caught.value.status == 409


async def test_a_closed_stream_holds_nobody() -> None:
    it = stream()
    await it.pause()
    it.close()
    assert await it.cancel() == 0
    with pytest.raises(RequestError):
        await it.steer("more")


async def test_a_reader_that_is_cancelled_during_a_pause_leaves_nothing_that_breaks() -> None:
    it = stream()
    await it.pause()
    reader = Reader(it, Finish())
    await idle()
    reader.task.cancel()
    await asyncio.wait([reader.task])
    it.close()
    assert reader.task.cancelled()


async def test_nothing_holds_up_the_end_of_what_was_told_to_end() -> None:
    it = stream()
    it.stop("the client went away")
    with pytest.raises(RequestError, match="told to end") as caught:
        await it.pause()
    assert caught.value.status == 409
    await asyncio.wait_for(Reader(it, Finish()).task, 5)
