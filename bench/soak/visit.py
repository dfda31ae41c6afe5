"""One client of a soak, and whether what it was given is whole."""

import asyncio
import random
import re
from typing import Any

import aiohttp

from bench.upstream import TOKEN

LEAVERS = 0.2  # of all clients leave in mid-stream
PATIENCE = 60.0  # seconds for any answer
_POSITION = re.compile(rb"^id: (.*)$", re.MULTILINE)


class Left(Exception):
    """The client has gone in mid-stream, as it meant to."""


class Broken(Exception):
    """An answer is not what it should be."""


class Visit:
    """`tokens` are what its answers have, one every `pace` milliseconds; `leaves_at` is after how many of them it goes.

    `came` is what it has been given of its last answer, `stream_id` whose that is; `durable` are all those that Weir
    keeps.
    """

    def __init__(self, http: aiohttp.ClientSession, chance: random.Random):
        self.http = http
        self.chance = chance
        self.tokens = chance.randint(5, 60)
        self.pace = chance.randint(5, 40)
        self.leaves_at = chance.randrange(self.tokens) if chance.random() < LEAVERS else None
        self.came = b""
        self.stream_id = ""
        self.begun = asyncio.Event()
        self.durable: set[str] = set()

    @property
    def text(self) -> str:
        """What it says: the fake upstream understands it."""
        return f"pace={self.pace} tokens={self.tokens}"

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [{"role": "user", "content": self.text}]

    async def ask(self, path: str, headers: dict[str, str] | None = None, **fields: Any) -> bytes:
        """All of an answer. Raises Left, or Broken."""
        body = {"messages": self.messages, **fields}
        async with self.http.post(path, json=body, headers=headers) as response:
            return await self._read(response)

    async def come_back(self, format: str) -> bytes:
        """What was missing when the client left, and all of it together."""
        had = self.came[: self.came.rfind(b"\n\n") + 2]
        positions = _POSITION.findall(had)
        after = {"last-event-id": positions[-1].decode()} if positions else {}
        self.leaves_at = None
        async with self.http.get(f"/v1/streams/{self.stream_id}?format={format}", headers=after) as response:
            return had + await self._read(response)

    async def tell(self, action: str, **fields: Any) -> int:
        """A control for the stream that is being read: the status that comes of it."""
        async with self.http.post(f"/api/streaming/streams/{self.stream_id}/{action}", json=fields) as response:
            return response.status

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.status != 200:
            raise Broken(f"{response.status} {await response.text()}")
        self.stream_id, self.came = response.headers["x-weir-stream-id"], b""
        async for data in response.content.iter_any():
            self.came += data
            self.begun.set()
            if self.leaves_at is not None and self.came.count(TOKEN) > self.leaves_at:
                response.close()
                raise Left
        return self.came


def check(answer: bytes, format: str, tokens: int, end: str = "finish") -> None:
    """Raises Broken for what is not all of an answer, with its end."""
    said, last = answer.count(TOKEN), answer[answer.rfind(b"data: ", 0, -1) :]
    ended = {"openai": end_of_openai, "sse": end_of_sse, "ui": end_of_ui}[format](answer)
    if ended != end or said != tokens:
        raise Broken(f"{said} tokens of {tokens}, and its end is {ended!r}: {last[-300:]!r}")


def end_of_openai(answer: bytes) -> str:
    if answer.endswith(b"data: [DONE]\n\n"):
        return "finish" if b'"finish_reason":"error"' not in answer else "error"
    return "error" if b'{"error":' in answer else ""


def end_of_sse(answer: bytes) -> str:
    ends = re.findall(rb'^data: \{"type":"(finish|error|abort)"', answer, re.MULTILINE)
    return ends[0].decode() if len(ends) == 1 else ""


def end_of_ui(answer: bytes) -> str:
    if b'{"type":"error"' in answer:
        return "abort" if b'{"type":"abort"}' in answer else "error"
    return "finish" if b'{"type":"finish",' in answer and answer.endswith(b"data: [DONE]\n\n") else ""
