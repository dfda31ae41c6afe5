"""A body read by tokens says what aiohttp's own reader says, and holds its server back where nobody reads."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.adapters.token_body import TokenBody, by_tokens

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
LIMIT = 10.0
Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@asynccontextmanager
async def asked(script: Script, read_bufsize: int = 2**16) -> AsyncIterator[aiohttp.ClientResponse]:
    """The response of a server that sends a head, and then what `script` writes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        try:
            await script(writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            done.set()

    done = asyncio.Event()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(LIMIT):
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/", read_bufsize=read_bufsize) as response,
        ):
            yield response
        await done.wait()
    server.close()


async def read(body: aiohttp.StreamReader) -> bytes:
    pieces = []
    while data := await body.readany():
        pieces.append(data)
    return b"".join(pieces)


async def test_the_reader_of_aiohttp_is_as_we_know_it() -> None:
    """Otherwise `by_tokens` leaves it alone, and each token costs a quarter more of what aiohttp takes."""

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(END)

    async with asked(say) as response:
        assert type(by_tokens(response)) is TokenBody


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(0, 400), max_size=6))
async def test_all_of_it_comes_in_order_however_it_is_cut(pieces: list[bytes], places: list[int]) -> None:
    wire = b"".join(map(chunk, pieces)) + END
    cuts = sorted(min(place, len(wire)) for place in places)

    async def say(writer: asyncio.StreamWriter) -> None:
        for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            writer.write(wire[begin:end])
            await writer.drain()
            await asyncio.sleep(0)

    async with asked(say) as response:
        body = by_tokens(response)
        assert await read(body) == b"".join(pieces)
        assert body.at_eof()


async def test_a_piece_is_given_when_it_comes() -> None:
    go_on = asyncio.Event()

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(chunk(b"one"))
        await go_on.wait()
        writer.write(chunk(b"two") + END)

    async with asked(say) as response:
        body = by_tokens(response)
        assert await body.readany() == b"one"
        go_on.set()
        assert await body.readany() == b"two"
        assert await body.readany() == b""


@pytest.mark.parametrize("ending", ["closed", "reset"])
async def test_what_came_before_a_break_is_given_before_it_is_told(ending: str) -> None:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(chunk(b"one"))
        await writer.drain()
        if ending == "reset":
            writer.transport.abort()
        else:
            writer.close()

    async with asked(say) as response:
        body = by_tokens(response)
        assert await body.readany() == b"one"
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await body.readany()


async def test_who_does_not_read_holds_the_server_back() -> None:
    """And gets all of it once he does."""
    total, sent = 20_000_000, 0

    async def say(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        piece = chunk(b"x" * 10_000)
        while sent < total:
            writer.write(piece)
            await writer.drain()
            sent += 10_000
        writer.write(END)

    async with asked(say, read_bufsize=16 * 1024) as response:
        body = by_tokens(response)
        came = len(await body.readany())
        seen = -1
        while seen != sent:  # until no more can be sent
            seen = sent
            for _ in range(200):
                await asyncio.sleep(0)
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        assert sent < total, "nothing held the server back"
        assert body._size < 1_000_000, f"{body._size} bytes wait here"
        assert came + len(await read(body)) == total


async def test_a_wait_that_is_cancelled_loses_nothing() -> None:
    go_on = asyncio.Event()

    async def say(writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(chunk(b"one") + END)

    async with asked(say) as response:
        body = by_tokens(response)
        waiting = asyncio.create_task(body.readany())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another one waits"):
            await body.readany()
        waiting.cancel()
        await asyncio.wait([waiting])
        go_on.set()
        assert await body.readany() == b"one"
