"""An answer on its way to the client: its status waits for its first event, its silence is filled, its end is told."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from proxy.api.auth import owner_of
from proxy.api.once import once_of, truth
from proxy.api.request import Request
from proxy.api.responses import error_response
from proxy.connection import ABORT
from proxy.durable.reader import Reader
from proxy.errors import INTERNAL, Stopped, WeirError
from proxy.events import Abort, Error, Finish
from proxy.pipeline.running import Running
from proxy.pipeline.stream import CLIENT_GONE
from proxy.request import ChatRequest
from proxy.settings import Settings
from proxy.streaming_request import Format
from proxy.wire import KEEP_ALIVE, Encoder
from proxy.wire.formats import encoder_for
from proxy.wire.numbered import Numbered
from proxy.wire.openai import ChunkEncoder
from proxy.wire.openai_fold import Fold

log = logging.getLogger(__name__)

STALLED = "the client takes nothing"
STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx must not hold tokens back
}


class Answer(Response):
    """A response that runs one request. Two tasks a request, none a token: this one writes, one watches."""

    def __init__(self, running: Running, encoder: Encoder, settings: Settings, *, stream: bool = True):
        # `Response.__init__` would make headers that nobody sends.
        self.status_code, self.raw_headers, self.background = 200, [], None
        self._running = running
        self._streams = stream
        self._journey = running.journey
        self._encoder = encoder
        self._settings = settings
        self._started = False  # the status line has been sent
        self._writing = False  # the client has not taken the last write yet
        self._pulse: asyncio.Future[None] | None = None  # the watcher is writing
        self._loop = asyncio.get_running_loop()
        self._last_write = self._loop.time()
        self._status_due = self._last_write + settings.status_wait

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        writer = asyncio.current_task()
        assert writer is not None
        watcher = asyncio.create_task(self._watch(receive, writer))
        try:
            await (self._stream() if self._streams else self._whole())
        except WeirError as error:
            await self._fail(error, scope, receive)
        except (ClientDisconnect, ConnectionError):
            pass
        except asyncio.CancelledError:
            if self._journey.stopped != STALLED or writer.uncancel() > 0:
                raise
            await _abort(scope, receive)
        except Exception:
            if not self._started:
                raise
            log.exception("request %s failed", self._journey.id)
            await self._fail(WeirError(INTERNAL), scope, receive)
        finally:
            watcher.cancel()

    async def _stream(self) -> None:
        encode, journey, loop, send = self._encoder.encode, self._journey, self._loop, self._send
        async with self._running.events() as events:
            async for event in events:
                if data := encode(event):
                    if self._pulse is not None or not self._started or journey.stopped is not None:
                        await self._write(data)
                        continue
                    # As `_write` does, for nearly all: two coroutines less for each token.
                    self._writing = True
                    self._last_write = loop.time()
                    journey.bytes += len(data)
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                    self._writing = False
        await self._write(b"", more=False)

    async def _whole(self) -> None:
        assert isinstance(self._encoder, ChunkEncoder), "only OpenAI's format has whole answers"
        fold = Fold(self._encoder)
        async with self._running.events() as events:
            async for event in events:
                if isinstance(event, Error):
                    raise WeirError(event.message, status=502, code=event.code)
                if isinstance(event, Abort):
                    raise Stopped(event.reason)
                fold.add(event)
                if isinstance(event, Finish):  # now: the upstream's connection may take a moment to come to its end
                    body = msgspec.json.encode(fold.completion())
                    await self._start(200, {"content-type": "application/json", "content-length": str(len(body))})
                    self._journey.bytes = len(body)
                    await self._send({"type": "http.response.body", "body": body})

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        if self._pulse is not None:
            await self._pulse
        if self._journey.stopped == STALLED:
            raise ClientDisconnect  # who took no keep-alive will not take this
        await self._put(data, more)

    async def _put(self, data: bytes, more: bool) -> None:
        self._writing = True
        self._last_write = self._loop.time()
        if not self._started:
            await self._start(200, {**STREAM_HEADERS, **self._encoder.content_headers})
        self._journey.bytes += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self._writing = False

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self._started = True
        fields = {**headers, **self._running.headers()}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def _fail(self, error: WeirError, scope: Scope, receive: Receive) -> None:
        """Says what went wrong: with a status if there is still time for one, otherwise in the stream."""
        if self._started:
            await self._send({"type": "http.response.body", "body": self._encoder.error(error)})
        else:
            response = error_response(error, self._running.headers())
            await response(scope, receive, self._send)

    async def _watch(self, receive: Receive, writer: asyncio.Task[object]) -> None:
        """Notices that the client went away, or takes nothing; and fills silence, so that nobody else gives up."""
        while True:
            seen = self._last_write
            try:
                async with asyncio.timeout_at(self._next_look()):
                    if (await receive())["type"] == "http.disconnect":
                        return self._running.stop(CLIENT_GONE)
            except TimeoutError:
                now = self._loop.time()
                if self._writing and now - self._last_write >= self._settings.stall:
                    self._running.stop(STALLED)
                    writer.cancel()
                    return None
                if self._last_write == seen and not self._writing and (self._started or now >= self._status_due):
                    await self._keep_alive()

    def _next_look(self) -> float | None:
        """When the watcher looks up, however little happens; an answer sent in one piece needs no looking after."""
        if not self._streams:
            return None
        now, pause = self._loop.time(), min(self._settings.keep_alive, self._settings.stall)
        due = self._last_write + pause if self._started else min(self._status_due, now + pause)
        return due if due > now or not self._started else now + pause

    async def _keep_alive(self) -> None:
        self._pulse = self._loop.create_future()
        try:
            async with asyncio.timeout(self._settings.stall):
                await self._put(KEEP_ALIVE, True)
        except (TimeoutError, ClientDisconnect, ConnectionError):
            self._running.stop(STALLED)
        finally:
            if not self._pulse.done():  # cancelled, with the writer that waited for it
                self._pulse.set_result(None)
            self._pulse = None


async def answer_to(request: Request, chat: ChatRequest, format: Format, message_id: str = "") -> Answer:
    """The answer to `chat`, for whoever sent `request`: its headers may ask for it to be durable."""
    weir = request.weir
    if given := request.headers.get("x-weir-durable"):
        chat.options.durable = truth("x-weir-durable", given)
    stream = weir.stream(chat, owner_of(request))
    stream.journey.traced = request.is_traced()
    running = await weir.run(chat, stream, await once_of(request), message_id)
    if isinstance(running, Reader):
        return reading(running, format, weir.settings, stream=chat.stream)
    return Answer(running, encoder_for(format, chat.heading(message_id)), weir.settings, stream=chat.stream)


def reading(reader: Reader, format: Format, settings: Settings, *, stream: bool = True) -> Answer:
    """What a reader of a durable stream gets."""
    encoder = encoder_for(format, reader.about.heading)
    if stream:
        encoder = Numbered(encoder, reader.after, lambda: reader.at)
    return Answer(reader, encoder, settings, stream=stream)


async def _abort(scope: Scope, receive: Receive) -> None:
    """Drops the connection, where the server lets us, and returns when the server knows that it is gone."""
    if abort := scope.get("extensions", {}).get(ABORT):
        abort["call"]()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await receive()
