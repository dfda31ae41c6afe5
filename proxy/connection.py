"""uvicorn's HTTP connection, with habits changed that ASGI gives no way to reach."""

import asyncio
import socket
from http import HTTPStatus

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from proxy.errors import RequestError

ABORT = "weir.abort"  # in `scope["extensions"]`: drops the connection, and what the client has not taken of it
WAITING = 16 * 1024  # bytes that wait here, and again in the kernel, for a client that is slower than we are
MOST_HEAD = 512 * 1024  # bytes of a head, or of what follows a body: with each read the parser joins them anew
HEAD_DUE = 60.0  # seconds for the head to come, on a new connection and from its first byte on


class Connection(HttpToolsProtocol):
    """Lets go of a client that takes nothing, or never comes to the point, keeps little on its way to a slow one, and
    answers what is not HTTP in OpenAI's error shape, as all else.
    """

    _fruitless = 0  # bytes since the last piece of a request that was of use
    _head_began: float | None = None  # by the loop's clock, while it is still to come
    _next_look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """What has left cannot be overtaken, or stopped: by default that is megabytes."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WAITING)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, WAITING)
        self._head_began = self.loop.time()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._fruitless += len(data)
        super().data_received(data)
        if self._fruitless > MOST_HEAD and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.send_400_response(f"its head is larger than {MOST_HEAD} bytes")
            else:
                self.transport.abort()

    def on_headers_complete(self) -> None:
        self._fruitless = 0
        self._head_began = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._fruitless = 0
        super().on_body(body)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_began = self.loop.time()
        # uvicorn's own close() waits until the client has taken everything: here, for ever.
        self.scope["extensions"] = {ABORT: {"call": self.transport.abort}}

    def send_400_response(self, msg: str) -> None:
        body = msgspec.json.encode(RequestError(f"not an HTTP request: {msg}").body())
        head = f"HTTP/1.1 400 {HTTPStatus(400).phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()

    def _look(self) -> None:
        """Lets go of a client whose head does not come. One timer a connection, armed anew when it fires."""
        now, began = self.loop.time(), self._head_began
        if self.transport.is_closing():
            return  # a WebSocket has taken it over, and its end is not told here
        if began is not None and now - began >= HEAD_DUE:
            self.transport.abort()
        else:
            self._next_look = self.loop.call_at((began or now) + HEAD_DUE, self._look)
