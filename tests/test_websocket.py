"""uvicorn's WebSocket connection: what one client can cost, whatever it does, on both event loops."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.api.socket import Socket
from proxy.testing import Answer, Script, ScriptedUpstream, begun, chunk, hang_after, sse
from proxy.websocket import FRAMES_AT_ONCE, HIGH_WATER, MAX_MESSAGE, OPTIONS, SocketConnection
from tests.process import until
from tests.server import LIMIT, Server, serving
from tests.socket_client import (
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    Raw,
    close_of,
    connected,
    events,
    frame,
    handshake,
    raw,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Their transports are not the same code."""
    return "asyncio", {"use_uvloop": request.param}


def ask(name: str) -> bytes:
    body = {
        "message_type": "chat_request",
        "request_id": name,
        "data": {"messages": [{"role": "user", "content": "?"}]},
    }
    return frame(TEXT, json.dumps(body).encode())


async def test_bad_utf_8_is_closed_with_1007(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server, raw(server.url) as client:
        await client.send(frame(TEXT, b'{"message_type":"\xff"}'))
        assert close_of(await client.rest()) == (1007, "not UTF-8")
        await until(lambda: not list(server.weir.sockets), "the socket has gone")
    assert not [record for record in caplog.records if record.levelno > logging.INFO], "a client cannot fill the log"


@pytest.mark.parametrize(("last", "code"), [(frame(PING), 1007), (frame(CLOSE, b"\x03\xe8"), 1000)])
async def test_what_comes_with_bad_utf_8_is_left_alone(last: bytes, code: int) -> None:
    async with serving() as server, raw(server.url) as client:
        await client.send(frame(PING) + frame(TEXT, b"\xff") + frame(TEXT, b'{"message_type":"ping"}') + last)
        assert close_of(await client.rest())[0] == code


async def test_bad_utf_8_across_fragments_too() -> None:
    async with serving() as server, raw(server.url) as client:
        await client.send(frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"("))
        assert close_of(await client.rest())[0] == 1007


async def test_a_message_of_a_mebibyte_is_read() -> None:
    async with serving() as server, connected(server.url) as client:
        await client.raw('{"message_type":"ping","data":{"x":"' + "x" * (MAX_MESSAGE - 39) + '"}}')
        assert (await client.hear())["message_type"] == "pong"


async def test_more_than_a_mebibyte_is_closed_with_1009() -> None:
    async with serving() as server:
        async with connected(server.url) as client:
            await client.raw("x" * (MAX_MESSAGE + 1))
            assert (await client.closed())[0] == 1009
        async with raw(server.url) as slow:
            await slow.send(frame(TEXT, b"x" * (MAX_MESSAGE // 2), fin=False))
            await slow.send(frame(CONTINUATION, b"x" * (MAX_MESSAGE // 2 + 1), fin=False))
            assert close_of(await slow.rest())[0] == 1009, "in pieces too"


@pytest.mark.parametrize(
    "flood",
    [frame(TEXT), frame(PING), frame(CONTINUATION, fin=False), frame(PING, b"x" * 125)],
    ids=["messages", "pings", "fragments", "long pings"],
)
async def test_a_flood_is_closed_with_1008(flood: bytes) -> None:
    """The client takes nothing while it sends."""
    begin = frame(TEXT, b"", fin=False) if flood == frame(CONTINUATION, fin=False) else b""
    async with serving() as server, raw(server.url) as client, connected(server.url) as other:
        await client.send(begin + flood * 3 * FRAMES_AT_ONCE)
        await other.say("ping")
        assert (await other.hear())["message_type"] == "pong", "the others are served"
        assert close_of(await client.rest())[0] == 1008


async def test_pings_of_one_who_takes_nothing_are_owed_once() -> None:
    async with full_socket() as (client, connection):
        backlog = connection.transport.get_write_buffer_size()
        await client.send(b"".join(frame(PING, b"%d" % number) for number in range(1000)))
        await until(lambda: connection._pong is not None and connection._pong.endswith(b"999"), "all were read")
        assert connection.transport.get_write_buffer_size() == backlog
        taken = b""
        while b"\x8a\x03999" not in taken:
            taken = taken[-100:] + await client.take()


async def test_a_slow_socket_holds_at_most_256_kib() -> None:
    """Sixteen chats whose providers have megabytes to say, and a client that takes nothing."""
    names = [f"r{number}" for number in range(16)]
    async with (
        watched() as (server, connections),
        raw(server.url, receive_buffer=4096) as client,
        ScriptedUpstream(endless()) as upstream,
    ):
        await server.register(upstream)
        await client.send(b"".join(map(ask, names)))
        await until(lambda: waiting(server) == 15, "one writes, and the others wait for their turn")
        (connection,) = connections
        made = sum(stream.journey.bytes for stream in server.weir.pipeline.live.values())
        held, here = made - client.untaken(), connection.transport.get_write_buffer_size()
        assert held <= 256 * 1024, f"{held} bytes have been made and have not reached the client"
        assert here <= HIGH_WATER + 2048, f"{here} bytes are in this process, and not one message at most too many"
        client.sock.close()
        async with asyncio.timeout(1):
            await upstream.disconnected(16)


async def test_one_who_takes_nothing_is_let_go() -> None:
    async with (
        serving(stall=0.2) as server,
        raw(server.url, receive_buffer=4096) as client,
        ScriptedUpstream(endless()) as upstream,
    ):
        await server.register(upstream)
        await client.send(ask("r"))
        await upstream.disconnected()
        await until(lambda: not list(server.weir.sockets), "the socket has gone")


PINGS = {**OPTIONS, "ws_ping_interval": 0.05, "ws_ping_timeout": 0.1}


@pytest.mark.parametrize("script", [hang_after(1), None], ids=["with room", "with a backlog"])
async def test_pings_find_a_socket_that_leads_nowhere(script: Script | None) -> None:
    async with (
        serving(ws=PINGS) as server,
        raw(server.url, receive_buffer=4096) as client,
        ScriptedUpstream(script or endless()) as upstream,
    ):
        await server.register(upstream)
        await client.send(ask("r"))
        await upstream.disconnected()
        await until(lambda: not list(server.weir.sockets), "the socket has gone")


async def test_pings_find_an_idle_one_too() -> None:
    async with serving(ws=PINGS) as server, raw(server.url) as client:
        assert close_of(await client.rest()) == (1011, "keepalive ping timeout")
        assert not list(server.weir.sockets)


async def test_one_who_takes_slowly_is_not_taken_for_gone() -> None:
    """It answers no ping: they stand in line behind all that it has not taken yet."""
    async with (
        serving(ws={**PINGS, "ws_ping_timeout": 0.5}) as server,
        raw(server.url, receive_buffer=16384) as client,
        ScriptedUpstream(endless()) as upstream,
    ):
        await server.register(upstream)
        await client.send(ask("r"))
        end = asyncio.get_running_loop().time() + 1.5
        while asyncio.get_running_loop().time() < end:
            assert await client.take(4096), "it was let go"
            await asyncio.sleep(0.02)
        assert list(server.weir.sockets)


async def test_at_shutdown_chats_end_first() -> None:
    gate = asyncio.Event()
    script = [*begun("a"), gate, sse(chunk(finish="stop")), sse("[DONE]")]
    async with (
        watched() as (server, connections),
        ScriptedUpstream(script) as upstream,
        connected(server.url) as busy,
        connected(server.url) as idle,
    ):
        await server.register(upstream)
        await busy.ask("r")
        await busy.until("text-delta")
        for connection in connections:
            connection.shutdown()
        assert await idle.closed() == (1012, "Weir is shutting down")
        gate.set()
        assert events(await busy.to_end("r"))[-1] == "finish"
        assert await busy.closed() == (1012, "Weir is shutting down")


async def test_a_handshake_that_cannot_be_read_is_not_kept() -> None:
    async with serving() as server:
        async with asyncio.timeout(LIMIT):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(handshake("/api/streaming/ws/ann", "x-long: " + "x" * 10_000))
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()


async def test_a_closed_socket_is_gone_for_certain() -> None:
    """Also where the client, asked to close, neither answers nor takes anything."""
    async with full_socket() as (client, connection):
        await client.send(frame(CLOSE, b"\x03\xe8"))
        await until(lambda: connection.disconnected, "the connection is gone", 5)


async def test_compression_is_not_agreed_on() -> None:
    async with serving() as server, connected(server.url, compression="deflate") as client:
        response = client.connection.response
        assert response is not None
        assert "sec-websocket-extensions" not in response.headers


@asynccontextmanager
async def watched(**settings: Any) -> AsyncIterator[tuple[Server, list[SocketConnection]]]:
    """A server, and the connections that are made to it."""
    connections: list[SocketConnection] = []

    class Watched(SocketConnection):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            connections.append(self)

    async with serving(ws={**OPTIONS, "ws": Watched}, **settings) as server:
        yield server, connections


@asynccontextmanager
async def full_socket() -> AsyncIterator[tuple[Raw, SocketConnection]]:
    """A client that has taken nothing of an endless chat, until its socket was full."""
    async with (
        watched() as (server, connections),
        raw(server.url, receive_buffer=4096) as client,
        ScriptedUpstream(endless()) as upstream,
    ):
        await server.register(upstream)
        await client.send(ask("r"))
        (connection,) = connections
        await until(lambda: not connection.writable.is_set(), "the socket is full")
        yield client, connection


def waiting(server: Server) -> int:
    """How many chats of the only socket wait for another to have been sent."""
    (it,) = server.weir.sockets
    assert isinstance(it.websocket, Socket)
    return len(it.websocket._outbox._turn._waiters or ())


def endless() -> Script:
    """Thirty megabytes, in pieces of a kilobyte: more than the kernel takes."""
    return [Answer(), *[sse(chunk({"content": "x" * 1024}))] * 30_000]
