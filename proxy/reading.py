"""An answer as a program reads it, in Weir's own process: events or bytes, an end, and never an exception."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from enum import StrEnum
from typing import Any, TypeVar, cast

from proxy.errors import INTERNAL, RequestError, Stopped, WeirError
from proxy.events import ENDS, Abort, Error, Event
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.stream import Stream
from proxy.request import ChatRequest
from proxy.streaming_request import Format
from proxy.wire import frames
from proxy.wire.formats import encoder_for

log = logging.getLogger(__name__)

LEFT = "its program went on"

Item = TypeVar("Item")


class StreamFormat(StrEnum):
    """What an answer is read as: events, or the bytes in which a server would write each of them."""

    GENERATOR = "generator"
    SSE = "sse"
    OPENAI = "openai"
    UI = "ui"
    WEBSOCKET = "websocket"


class Reading(AsyncGenerator[Item, None]):
    """An answer. It is asked for when somebody begins to iterate, and closing it ends the provider's call.

    `id` is what `Weir.control` finds it by.
    """

    def __init__(self, stream: Stream, items: AsyncGenerator[Item, None]):
        self.id = stream.id
        self._stream = stream
        self._items = items

    async def asend(self, value: None) -> Item:
        return await self._items.asend(value)

    async def athrow(self, *error: Any) -> Item:
        return await self._items.athrow(*error)

    async def aclose(self) -> None:
        """Returns when the provider has been let go. A task that is reading meanwhile gets an Abort."""
        if getattr(self._items, "ag_running", False):
            await self._stream.cancel(LEFT)
        else:
            await self._items.aclose()


async def events_of(pipeline: Pipeline, request: ChatRequest, stream: Stream) -> AsyncGenerator[Event, None]:
    """What is said to `request`, ended by exactly one of Finish, Error, Abort, whatever happens."""
    ended = False
    try:
        async with pipeline.answer(request, stream) as events:
            async for event in events:
                ended = type(event) in ENDS
                yield event
        return
    except WeirError as error:
        last = end_of(error)
    except Exception:
        log.exception("request %s failed", request.id)
        last = Error(message=INTERNAL, code="internal_error")
    if not ended:
        last.seq = stream.position + 1
        yield last


def end_of(error: WeirError) -> Event:
    """The only event of an answer that could not begin."""
    if isinstance(error, Stopped):
        return Abort(reason=error.message)
    return Error(message=error.message, code=error.code)


def in_format(name: str, events: AsyncGenerator[Event, None], request: ChatRequest) -> AsyncGenerator[Any, None]:
    """`events` as the format of that name has them. Raises RequestError if there is none."""
    if name not in {*StreamFormat}:
        known = ", ".join(StreamFormat)
        raise RequestError(f"stream_format: there is no {name!r}; known: {known}", param="stream_format")
    if name == StreamFormat.GENERATOR:
        return events
    if name == StreamFormat.WEBSOCKET:
        return _written(events, lambda event: frames.stream_event(request.id, event).encode())
    return _written(events, encoder_for(cast(Format, str(name)), request).encode)


async def _written(
    events: AsyncGenerator[Event, None], encode: Callable[[Event], bytes]
) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            if data := encode(event):
                yield data
