"""Clients of a WebSocket: one that keeps to the protocol, and one that need not."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec
import websockets
from websockets.asyncio.client import ClientConnection

from tests.server import LIMIT

Frame = dict[str, Any]

CONTINUATION, TEXT, CLOSE, PING = 0x0, 0x1, 0x8, 0x9  # opcodes
ENDS = ("finish", "error", "abort")


class Client:
    """Says and hears messages. `first` is the one that greeted it."""

    def __init__(self, connection: ClientConnection):
        self.connection = connection
        self.first: Frame = {}

    async def say(self, message_type: str, request_id: str | None = None, **data: Any) -> None:
        named = {} if request_id is None else {"request_id": request_id}
        await self.raw(msgspec.json.encode({"message_type": message_type, **named, "data": data}).decode())

    async def ask(self, request_id: str | None = None, text: str = "hi", **data: Any) -> None:
        await self.say("chat_request", request_id, messages=[{"role": "user", "content": text}], **data)

    async def raw(self, text: str | bytes) -> None:
        await self.connection.send(text)

    async def hear(self) -> Frame:
        async with asyncio.timeout(LIMIT):
            frame: Frame = msgspec.json.decode(await self.connection.recv())
            return frame

    async def until(self, message_type: str) -> Frame:
        """The next message of that type, or the next event; what comes before it is dropped."""
        while True:
            frame = await self.hear()
            if message_type in (frame["message_type"], event_type(frame)):
                return frame

    async def to_end(self, *names: str) -> list[Frame]:
        """All there is to hear, until each of these chats, or just one of any name, has ended."""
        frames: list[Frame] = []
        open_ones: set[str | None] = set(names or (None,))
        while open_ones:
            frames.append(await self.hear())
            if event_type(frames[-1]) in ENDS:
                open_ones.discard(frames[-1]["request_id"] if names else None)
        return frames

    async def closed(self) -> tuple[int | None, str]:
        """Its code and reason, once it is; what comes before that is dropped."""
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await self.hear()
        return self.connection.close_code, self.connection.close_reason or ""


@asynccontextmanager
async def connected(url: str, user: str = "ann", session: str | None = "s1", **options: Any) -> AsyncIterator[Client]:
    """A client whom Weir at `url` has greeted; `options` are those of `websockets.connect`."""
    address = f"ws{url.removeprefix('http')}/api/streaming/ws/{user}" + (f"?session_id={session}" if session else "")
    async with asyncio.timeout(LIMIT):
        connection = await websockets.connect(address, proxy=None, close_timeout=LIMIT, **options)
    try:
        client = Client(connection)
        client.first = await client.hear()
        yield client
    finally:
        await connection.close()


class Raw:
    """A TCP connection on which a handshake was made, and all else is the test's. It takes what it is told to take."""

    def __init__(self, sock: socket.socket):
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(LIMIT):
            await self._loop.sock_sendall(self.sock, data)

    async def take(self, most: int = 65536) -> bytes:
        """What has come, at least a byte; b"" once the connection is closed or broken."""
        async with asyncio.timeout(LIMIT):
            try:
                return await self._loop.sock_recv(self.sock, most)
            except ConnectionError:
                return b""

    async def rest(self) -> bytes:
        """All that comes until the connection is closed."""
        taken = bytearray()
        while data := await self.take():
            taken += data
        return bytes(taken)

    def untaken(self) -> int:
        """Bytes that lie in this machine's kernel for us."""
        answer = fcntl.ioctl(self.sock, termios.FIONREAD, b"\0\0\0\0")
        return int(struct.unpack("i", answer)[0])


@asynccontextmanager
async def raw(url: str, receive_buffer: int | None = None, path: str = "/api/streaming/ws/ann") -> AsyncIterator[Raw]:
    """`receive_buffer`: bytes that the kernel may take for it."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    with socket.socket() as sock:
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
        client = Raw(sock)
        await client.send(handshake(path))
        head = b""
        while b"\r\n\r\n" not in head:
            head += await client.take(1)
        assert b" 101 " in head, head
        yield client


def handshake(path: str = "/api/streaming/ws/ann", *headers: str) -> bytes:
    upgrade = ["host: localhost", "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"]
    key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
    return "\r\n".join([f"GET {path} HTTP/1.1", *upgrade, key, *headers, "", ""]).encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame as RFC 6455 (5.2) has it, masked with zeros."""
    length = len(payload)
    if length > 65535:
        size = struct.pack(">BQ", 0xFF, length)
    else:
        size = struct.pack(">BH", 0xFE, length) if length > 125 else struct.pack("B", 0x80 | length)
    return struct.pack("B", (0x80 if fin else 0) | opcode) + size + b"\0\0\0\0" + payload


def close_of(taken: bytes) -> tuple[int, str]:
    """The code and reason of the close frame that stands last in what a client took."""
    at = taken.rindex(b"\x88")
    while len(taken) - at - 2 != taken[at + 1]:
        at = taken.rindex(b"\x88", 0, at)
    return struct.unpack(">H", taken[at + 2 : at + 4])[0], taken[at + 4 :].decode()


def event_type(frame: Frame) -> str | None:
    """What happened, if it is an event of a chat."""
    return frame["data"]["event_type"] if frame["message_type"] == "stream_event" else None


def events(frames: list[Frame], name: str | None = None) -> list[str]:
    """The types of the events of one chat, or of all."""
    return [kind for frame in frames if (kind := event_type(frame)) and name in (None, frame["request_id"])]


def text_of(frames: list[Frame], name: str | None = None) -> str:
    """What was said in one chat, or in all."""
    found = [it for it in frames if event_type(it) == "text-delta" and name in (None, it["request_id"])]
    return "".join(it["data"]["event_data"]["content"] for it in found)
