"""An answer as a program reads it: whatever happens, it has one end, and nothing is raised."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from proxy.errors import Kind, NoAnswer, ProviderError, Stopped, StoreAway
from proxy.events import Abort, Error, Event, Finish, Start, TextDelta
from proxy.journey import Journey
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.running import Live, Running
from proxy.pipeline.stream import Stream
from proxy.reading import LEFT, Asked, Reading, StreamFormat, events_of, in_format
from proxy.testing import play
from tests.journeys import idle, request

pytestmark = pytest.mark.anyio

Script = Sequence[Event | Exception]


class Scripted:
    """A pipeline that says these things, and raises those; `opening` and `closing` are raised before and after."""

    def __init__(self, *script: Event | Exception, opening: Exception | None = None, closing: Exception | None = None):
        self._script = script
        self._opening = opening
        self._closing = closing

    @asynccontextmanager
    async def answer(self, request: Any, stream: Stream) -> AsyncIterator[AsyncGenerator[Event, None]]:
        if self._opening:
            raise self._opening
        yield self._events()
        if self._closing:
            raise self._closing

    async def _events(self) -> AsyncGenerator[Event, None]:
        for seq, step in enumerate(self._script, start=1):
            if isinstance(step, Exception):
                raise step
            step.seq = seq
            yield step


async def read(pipeline: Scripted) -> list[Event]:
    async def run() -> Running:
        return Live(cast(Pipeline, pipeline), request(), Stream(Journey("r1", "m")))

    return await play(events_of(Asked("s1", run)))


def asked(stream: Stream) -> Asked:
    async def run() -> Running:
        raise NotImplementedError

    return Asked(stream.id, run, stream)


async def test_what_is_said_passes_as_it_is() -> None:
    said = [Start(), TextDelta(content="hi"), Finish()]
    assert await read(Scripted(*said)) == said


@pytest.mark.parametrize(
    ("opening", "end"),
    [
        (NoAnswer({"a": ProviderError(Kind.SERVER, "down")}), Error),
        (Stopped("shutting down"), Abort),
        (RuntimeError("a bug"), Error),
    ],
)
async def test_what_prevents_an_answer_is_its_only_event(opening: Exception, end: type[Event]) -> None:
    (event,) = await read(Scripted(opening=opening))
    assert type(event) is end
    assert event.seq == 1


async def test_what_breaks_an_answer_is_its_end() -> None:
    _, last = await read(Scripted(Start(), RuntimeError("a bug")))
    assert isinstance(last, Error)
    assert (last.code, last.seq) == ("internal_error", 2)
    assert "a bug" not in last.message, "the details are the log's"


async def test_what_goes_wrong_after_the_end_is_no_second_end() -> None:
    events = await read(Scripted(Start(), Finish(), closing=RuntimeError("a bug")))
    assert [type(event) for event in events] == [Start, Finish]


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        (StreamFormat.SSE, b'data: {"type":"start"'),
        (StreamFormat.OPENAI, b'data: {"id":"chatcmpl-r1"'),
        (StreamFormat.UI, b'data: {"type":"start","messageId":"r1"}'),
        (StreamFormat.WEBSOCKET, b'{"message_type":"stream_event","request_id":"r1"'),
        ("sse", b'data: {"type":"start"'),
    ],
)
async def test_a_format_is_written_event_by_event_and_closed_with_its_reader(name: str, begins: bytes) -> None:
    closed = []

    async def said() -> AsyncGenerator[Event, None]:
        try:
            yield Start()
            yield TextDelta(content="hi")
        finally:
            closed.append(True)

    data = in_format(name, said(), request())
    assert (await anext(data)).startswith(begins)
    await data.aclose()
    assert closed


@pytest.mark.parametrize("name", ["sse", "openai", "ui", "websocket"])
async def test_what_no_format_can_hold_is_an_error_as_well(name: str) -> None:
    async def said() -> AsyncGenerator[Event, None]:
        yield Start()
        yield TextDelta(content="caf\udce9")
        yield Finish()

    data = [it async for it in in_format(name, said(), request())]
    assert b"an internal error" in data[-1]


async def test_closing_it_under_its_reader_tells_the_reader() -> None:
    stream = Stream(Journey("r1", "m"))

    async def said() -> AsyncGenerator[Event, None]:
        while stream.journey.stopped is None:
            await asyncio.sleep(0)
        stream.close()
        yield Abort(reason=stream.journey.stopped)

    reading = Reading(asked(stream), said())
    reader = asyncio.create_task(play(reading))
    await asyncio.sleep(0)
    await reading.aclose()
    assert await reader == [Abort(reason=LEFT)]


async def test_closing_it_while_it_is_still_to_begin_waits_for_nothing() -> None:
    """It may not begin at all, and then there is no end to wait for."""
    gate, stream = asyncio.Event(), Stream(Journey("r1", "m"))

    async def run() -> Running:
        await gate.wait()
        raise StoreAway("a durable stream")

    asked = Asked(stream.id, run, stream)
    reading: Reading[Event] = Reading(asked, events_of(asked))
    reader = asyncio.create_task(play(reading))
    await idle()
    async with asyncio.timeout(5):
        await reading.aclose()
    gate.set()
    assert [type(event) for event in await reader] == [Error]


async def test_it_is_an_async_generator_in_every_way() -> None:
    async def said() -> AsyncGenerator[Event, None]:
        try:
            yield Start()
        except KeyError:
            yield Finish()

    reading = Reading(asked(Stream(Journey("r1", "m"))), said())
    assert await anext(reading) == Start()
    assert await reading.athrow(KeyError()) == Finish()
