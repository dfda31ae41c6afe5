"""An answer as a program reads it: whatever happens, it has one end, and nothing is raised."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from proxy.errors import Kind, NoAnswer, ProviderError, Stopped
from proxy.events import Abort, Error, Event, Finish, Start, TextDelta
from proxy.journey import Journey
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.stream import Stream
from proxy.reading import LEFT, Reading, StreamFormat, events_of, in_format
from proxy.testing import play
from tests.journeys import request

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
        yield self._events(stream)
        if self._closing:
            raise self._closing

    async def _events(self, stream: Stream) -> AsyncGenerator[Event, None]:
        for step in self._script:
            if isinstance(step, Exception):
                raise step
            stream.position += 1
            yield step


async def read(pipeline: Scripted) -> list[Event]:
    return await play(events_of(cast(Pipeline, pipeline), request(), Stream(Journey("r1", "m"))))


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
    assert events == [Start(), Finish()]


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


async def test_closing_it_under_its_reader_tells_the_reader() -> None:
    stream = Stream(Journey("r1", "m"))

    async def said() -> AsyncGenerator[Event, None]:
        while stream.journey.stopped is None:
            await asyncio.sleep(0)
        stream.close()
        yield Abort(reason=stream.journey.stopped)

    reading = Reading(stream, said())
    reader = asyncio.create_task(play(reading))
    await asyncio.sleep(0)
    await reading.aclose()
    assert await reader == [Abort(reason=LEFT)]


async def test_it_is_an_async_generator_in_every_way() -> None:
    async def said() -> AsyncGenerator[Event, None]:
        try:
            yield Start()
        except KeyError:
            yield Finish()

    reading = Reading(Stream(Journey("r1", "m")), said())
    assert await anext(reading) == Start()
    assert await reading.athrow(KeyError()) == Finish()
