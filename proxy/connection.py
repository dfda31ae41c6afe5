"""uvicorn's HTTP connection, with habits changed that ASGI gives no way to reach."""

import asyncio
import socket
from http import HTTPStatus

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from proxy.errors import RequestError

ABORT = "weir.abort"  # in `scope["extensions"]`: drops the connection, and what the client has not taken of it
WAITING = 16 * 1024  # bytes that wait here, and again in the kernel, for a client that is slower than we are


class Connection(HttpToolsProtocol):
    """Lets go of a client that takes nothing, keeps little on its way to a slow one, and answers what is not HTTP in
    OpenAI's error shape, as all else.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """What has left cannot be overtaken, or stopped: by default that is megabytes."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WAITING)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, WAITING)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # uvicorn's own close() waits until the client has taken everything: here, for ever.
        self.scope["extensions"] = {ABORT: {"call": self.transport.abort}}

    def send_400_response(self, msg: str) -> None:
        body = msgspec.json.encode(RequestError(f"not an HTTP request: {msg}").body())
        head = f"HTTP/1.1 400 {HTTPStatus(400).phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()
