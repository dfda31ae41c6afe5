"""uvicorn's WebSocket connection, with habits changed that would let one client hold a server up, or its memory."""

from collections.abc import Coroutine
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.protocol import State

from proxy.bucket import Bucket
from proxy.connection import ABORT

# In `scope["extensions"]`: its "call" is called when the server shuts down, and then sees to it that the socket closes.
LEAVE = "weir.leave"

MAX_MESSAGE = 1024 * 1024  # bytes; more is closed with 1009
HIGH_WATER = 64 * 1024  # bytes that wait here for the client to take them; whoever sends more waits
KERNEL = 64 * 1024  # bytes that wait in the kernel, which doubles this for its own needs
SLICE = 4096  # bytes that are taken apart before the flood gauge is read
FRAMES, FRAMES_AT_ONCE = 500, 2000  # of any kind, a second and at once
LINGER = 1.0  # seconds for the client to hear why the connection is closed
FLOODED = "too many frames"


class SocketConnection(WebSocketsSansIOProtocol):
    """Tells the application of a shutdown rather than cutting it off, judges a slow client by what it takes, bounds
    what a flood of small frames can cost, and lets go for certain.
    """

    _given = 0  # bytes that the application has sent
    _had = 0  # of these, had left for the client when it was pinged
    _pong: bytes | None = None  # owed to the client, once it takes something

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._gauge = Bucket(FRAMES, FRAMES_AT_ONCE)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        if sock := transport.get_extra_info("socket"):
            sock.setsockopt(SOL_SOCKET, SO_SNDBUF, KERNEL)

    def data_received(self, data: bytes) -> None:
        """In slices: one read may hold 40,000 frames, and taking them all apart would hold up everybody else."""
        for start in range(0, len(data), SLICE):
            super().data_received(data[start : start + SLICE])
        if not self.handshake_initiated:  # the whole of it has come: uvicorn would wait for ever
            self.transport.abort()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            self._leave: dict[str, Any] = {"call": None}
            extensions: dict[str, Any] = {ABORT: {"call": self.transport.abort}, LEAVE: self._leave}
            self.scope["extensions"] |= extensions

    def handle_events(self) -> None:
        if self._gauge.take(len(self.conn.events)):
            super().handle_events()
            return
        self.conn.events_received()  # and dropped
        if self.close_sent:
            self.transport.abort()
        else:
            self._fail(CloseCode.POLICY_VIOLATION, FLOODED)

    def send_receive_event_to_app(self) -> None:
        """Bad UTF-8 would be a traceback in the log."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                return self._fail(CloseCode.INVALID_DATA, "not UTF-8")
        super().send_receive_event_to_app()
        return None

    def handle_ping(self) -> None:
        """A client that takes nothing is owed the last pong only, as RFC 6455 (5.5.3) has it."""
        pongs = self.conn.data_to_send()  # those of all pings that came with this one
        if self.close_sent:
            return
        if self.writable.is_set() or self.conn.state is not State.OPEN:
            self.transport.write(b"".join(pongs))
        elif pongs:
            self._pong = pongs[-1]

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._pong is not None and not self.close_sent:
            self.transport.write(self._pong)
            self._pong = None

    def send_keepalive_ping(self) -> None:
        self._had = self._given - self.transport.get_write_buffer_size()
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """A ping may stand in line behind what the client takes, slowly."""
        had, self._had = self._had, self._given - self.transport.get_write_buffer_size()
        if self._had > had:
            self.pong_timer = self.loop.call_later(self.ping_timeout or 0, self.keepalive_timeout)
        else:
            self._fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")

    def shutdown(self) -> None:
        """What runs on this socket may come to its end first."""
        if self.handshake_complete and not self.close_sent and (leave := self._leave["call"]):
            leave()
        else:
            super().shutdown()

    def handle_parser_exception(self) -> None:
        """Were it closed now, the client's system would answer what is still on its way by forgetting the reason."""
        if self.close_sent:
            return
        closed = self.conn.close_sent
        code, reason = (closed.code, closed.reason) if closed else (CloseCode.ABNORMAL_CLOSURE, "")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(LINGER, self.transport.abort)

    def send(self, message: Any) -> Coroutine[Any, Any, None]:
        if not self.handshake_complete:
            return self._greet(message)
        self._given += len((message.get("text") or "").encode())
        return super().send(message)

    async def _greet(self, message: Any) -> None:
        """uvicorn would take a refusal with a body for an application that forgot to answer, and log an error."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self.loop.call_later(LINGER, self.transport.abort)  # close() waits until the client has taken everything

    def _fail(self, code: CloseCode, reason: str) -> None:
        self.conn.fail(code, reason)
        self.handle_parser_exception()


OPTIONS: dict[str, Any] = {
    "ws": SocketConnection,
    "ws_max_size": MAX_MESSAGE,
    "ws_ping_interval": 20.0,
    "ws_ping_timeout": 20.0,
    "ws_per_message_deflate": False,  # costs 0.5 to 0.8 MB a connection
}
