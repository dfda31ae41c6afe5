"""An answer as a program reads it, in Weir's own process: events or bytes, an end, and never an exception."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from enum import StrEnum
from typing import Any, TypeVar, cast

from msgspec.structs import replace

from proxy.errors import INTERNAL, RequestError, WeirError
from proxy.events import ENDS, Event, ending
from proxy.pipeline.running import Running
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


class Asked:
    """An answer that is asked for by `begin`, once somebody reads it.

    `id` is its stream's; `stream` is None where it was begun elsewhere, and is only read here.
    """

    def __init__(self, id: str, run: Callable[[], Awaitable[Running]], stream: Stream | None = None):
        self.id = id
        self.stream = stream
        self.running: Running | None = None
        self._run = run
        self._stopped: str | None = None

    @property
    def position(self) -> str:
        """Where the stream can be read on, after the event that was read last; empty if nowhere."""
        return self.running.position if self.running is not None else ""

    async def begin(self) -> Running:
        self.running = await self._run()
        self.id = self.running.id
        if self._stopped is not None:
            self.running.stop(self._stopped)
        return self.running

    def stop(self, reason: str) -> None:
        """Ends the reading, now or as soon as it begins."""
        self._stopped = reason
        if self.running is not None:
            self.running.stop(reason)

    async def leave(self, reason: str) -> None:
        """As `stop`. What nobody else can read has ended when this returns."""
        if self.stream is None or self.stream.durable:
            self.stop(reason)
        elif self.running is None:  # it may never begin, and so never end
            self.stream.stop(reason)
        else:
            await self.stream.cancel(reason)


class Reading(AsyncGenerator[Item, None]):
    """An answer. It is asked for when somebody begins to iterate, and closing it ends the provider's call; a durable
    stream goes on.

    `id` is what `Weir.control` and `Weir.read_stream` find it by.
    """

    def __init__(self, asked: Asked, items: AsyncGenerator[Item, None]):
        self._asked = asked
        self._items = items

    @property
    def id(self) -> str:
        return self._asked.id

    @property
    def position(self) -> str:
        """Where a durable stream can be read on, after what was read last; empty for any other."""
        return self._asked.position

    async def asend(self, value: None) -> Item:
        return await self._items.asend(value)

    async def athrow(self, *error: Any) -> Item:
        return await self._items.athrow(*error)

    async def aclose(self) -> None:
        """Returns when the provider has been let go. A task that is reading meanwhile gets an Abort."""
        if getattr(self._items, "ag_running", False):
            await self._asked.leave(LEFT)
        else:
            await self._items.aclose()


async def events_of(asked: Asked) -> AsyncGenerator[Event, None]:
    """What it says that its reader has not had, ended by exactly one of Finish, Error, Abort, whatever happens."""
    ended, seq = False, 0
    try:
        running = await asked.begin()
        async with running.events() as events:
            async for event in events:
                ended, seq = type(event) in ENDS, event.seq
                if not running.has_had(event):
                    yield event
        return
    except WeirError as error:
        last = ending(error)
    except Exception:
        log.exception("stream %s failed", asked.id)
        last = ending(WeirError(INTERNAL))
    if not ended:
        last.seq = seq + 1
        yield last


def in_format(name: str, events: AsyncGenerator[Event, None], request: ChatRequest) -> AsyncGenerator[Any, None]:
    """`events` as the format of that name has them. Raises RequestError if there is none."""
    if name not in {*StreamFormat}:
        known = ", ".join(StreamFormat)
        raise RequestError(f"stream_format: there is no {name!r}; known: {known}", param="stream_format")
    if name == StreamFormat.GENERATOR:
        return events
    if name == StreamFormat.WEBSOCKET:
        return _written(events, lambda event: frames.stream_event(request.id, event).encode())
    return _written(events, encoder_for(cast(Format, str(name)), request.heading()).encode)


async def _written(
    events: AsyncGenerator[Event, None], encode: Callable[[Event], bytes]
) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            try:
                data = encode(event)
            except Exception:  # it may hold what no format can: a text that is not Unicode, say
                log.exception("an event cannot be written")
                yield encode(replace(ending(WeirError(INTERNAL)), seq=event.seq))
                return
            if data:
                yield data
