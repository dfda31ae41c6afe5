"""uvicorn's connection, with two habits changed."""

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest

from proxy.api.answer import Answer
from proxy.connection import ABORT
from proxy.pipeline.running import Live
from proxy.request import ChatRequest
from proxy.settings import Settings
from proxy.testing import ScriptedUpstream, hang_after
from proxy.wire.formats import encoder_for
from tests.server import chat, serving

pytestmark = pytest.mark.anyio


async def test_what_is_not_http_is_told_so_in_openais_shape() -> None:
    async with serving() as server:
        status, body = await server.raw(b"NOT HTTP AT ALL\r\n\r\n")
    assert status == 400
    assert msgspec.json.decode(body)["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET / HTTP/1.1\r\nx-a: ", b"y"),
        (b"GET / HTTP/1.1\r\n", b"x-a: y\r\n"),
        (b"GET /", b"y"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x-a: y\r\n"),
    ],
    ids=["a header", "headers", "a path", "trailers"],
)
async def test_a_request_without_end_is_cut_off(begin: bytes, more: bytes) -> None:
    """All of it is kept until it is complete, and anybody may send it, without a key."""
    async with serving() as server, asyncio.timeout(10):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(begin)
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                writer.write(more * (65536 // len(more)))
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()


async def test_a_large_head_that_ends_is_none_of_these() -> None:
    async with serving() as server:
        head = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nx-a: " + b"y" * 100_000
        assert (await server.raw(head + b"\r\n\r\n"))[0] == 200


@pytest.mark.parametrize("begun", [b"", b"GET / HT"])
async def test_a_connection_that_asks_nothing_is_closed(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.connection.HEAD_DUE", 0.05)
    async with serving() as server, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(begun)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


async def test_a_client_that_takes_nothing_loses_its_connection() -> None:
    """uvicorn would keep it until the client has taken everything, and wait for that when it shuts down."""
    dropped: list[None] = []

    async def never(message: Any = None) -> Any:
        await asyncio.Event().wait()

    async with serving() as server, ScriptedUpstream(hang_after(1)) as upstream:
        await server.register(upstream)
        request, limits = ChatRequest(chat(stream=True), "r1"), Settings(keep_alive=0.02, stall=0.05)
        running = Live(server.weir.pipeline, request, server.weir.stream(request))
        answer = Answer(running, encoder_for("openai", request.heading()), limits)
        scope = {"type": "http", "extensions": {ABORT: {"call": lambda: dropped.append(None)}}}
        await asyncio.wait_for(answer(scope, never, never), 5)
    assert dropped, "the connection was left open"
