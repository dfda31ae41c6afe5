"""Priority where it counts: a real socket with small buffers, and a reader slower than its writers."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.testing import ScriptedUpstream, Step, begun, chunk, sse, text
from tests.process import call, provider, until, weir

pytestmark = pytest.mark.anyio

THOUGHT = sse(chunk({"reasoning_content": "t" * 1000}))
MANY = 15_000  # of them: the thinker's own socket holds megabytes
SMALL = 16 * 1024  # bytes of the reader's buffer; a larger one holds it all, and nothing can be overtaken


class SlowReader:
    """Asks, and reads nothing until it is told to."""

    def __init__(self, url: str, mode: str):
        self._address = ("127.0.0.1", int(url.rpartition(":")[2]))
        body = {
            "messages": [{"role": "user", "content": "hi"}],
            "provider_ids": ["thinks", "answers"],
            "generator_mode": mode,
        }
        data = json.dumps(body).encode()
        head = f"POST /api/streaming/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n"
        self._request = head.encode() + data

    async def ask(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        self._socket.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, self._address)
        await loop.sock_sendall(self._socket, self._request)

    async def read(self) -> str:
        """As far as the answer."""
        loop, got = asyncio.get_running_loop(), b""
        async with asyncio.timeout(20):
            while b"ANSWER" not in got:
                piece = await loop.sock_recv(self._socket, 65536)
                assert piece, f"the stream broke off after {got[-500:]!r}"
                got += piece
        return got.decode()

    def close(self) -> None:
        self._socket.close()


class Thoughts(list[Step]):
    """A script that knows how much of it has been taken, and whether it is held back: nothing has moved of late."""

    written = 0
    _seen = (0, 0)  # how much had been taken, and how often it was found unchanged

    def __iter__(self) -> Iterator[Step]:
        for step in super().__iter__():
            self.written += 1
            yield step

    def found_anew(self) -> None:
        self._seen = (0, 0)

    def held_back(self) -> bool:
        unchanged = self._seen[1] + 1 if self.written == self._seen[0] else 0
        self._seen = (self.written, unchanged)
        return unchanged > 10 and self.written > 10


async def thoughts_before_the_answer(path: Path, mode: str) -> int:
    """How many a slow reader gets although the answer was there before he began to read."""
    speak = asyncio.Event()
    thinking = Thoughts([*begun(), *[THOUGHT] * MANY, *text()[2:]])
    answering: list[Step] = [*begun("first"), speak, *text("ANSWER")[2:]]
    async with weir(path) as server, ScriptedUpstream(thinking) as thinks, ScriptedUpstream(answering) as answers:
        for provider_id, upstream in (("thinks", thinks), ("answers", answers)):
            assert (await call(f"{server.url}/providers", provider(upstream.url, provider_id)))[0] == 201
        reader = SlowReader(server.url, mode)
        await reader.ask()
        try:
            await until(thinking.held_back, "back-pressure on the thinker")
            assert thinking.written < MANY, f"{mode}: all of it was taken for a reader that reads nothing"
            speak.set()
            thinking.found_anew()
            await until(thinking.held_back, "a moment in which the answer comes to the merge")
            return (await reader.read()).split("ANSWER")[0].count("reasoning-delta")
        finally:
            reader.close()


async def test_an_answer_overtakes_the_thoughts_that_wait(tmp_path: Path) -> None:
    before = {mode: await thoughts_before_the_answer(tmp_path, mode) for mode in ("standard", "priority")}
    assert before["priority"] + 30 < before["standard"], f"thoughts before the answer, by mode: {before}"
