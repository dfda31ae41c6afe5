"""A load generator that costs little: raw connections, each of which asks the same again and again.

It looks at no more of an answer than it must: where its body ends, its status, and how many tokens are in it.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

from bench.upstream import TOKEN

PATIENCE = 120.0  # seconds for all of a load


@dataclass(frozen=True)
class Ask:
    """A request, ready to be sent. `tokens` is how many must come back."""

    path: str
    body: bytes
    tokens: int
    headers: tuple[str, ...] = ()

    def rendered(self) -> bytes:
        fields = ["host: 127.0.0.1", "content-type: application/json", *self.headers]
        lines = "".join(f"{line}\r\n" for line in (f"POST {self.path} HTTP/1.1", *fields))
        return f"{lines}content-length: {len(self.body)}\r\n\r\n".encode() + self.body


@dataclass
class Seen:
    """What a load saw: answers and tokens that came, seconds to the first token of each, and `(when, piece)` as it came
    for those who asked for all of it.
    """

    answers: int = 0
    tokens: int = 0
    first: list[float] = field(default_factory=list)
    pieces: list[tuple[float, bytes]] | None = None


class _Client(asyncio.Protocol):
    """One connection. `done` has what went wrong, if anything."""

    def __init__(self, request: bytes, ask: Ask, times: int, seen: Seen):
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request, self._ask, self._times, self._seen = request, ask, times, seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def _next(self) -> None:
        if not self._times:
            self.done.set_result(None)
            self._transport.close()
            return
        self._times -= 1
        self._came: list[bytes] = []
        self._ends: int | None = None  # bytes in the whole answer, once its head has told
        self._had = 0
        self._told = False
        self._asked = time.monotonic()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._told and TOKEN in data:
            self._told = True
            self._seen.first.append(time.monotonic() - self._asked)
        if self._seen.pieces is not None:
            self._seen.pieces.append((time.monotonic(), data))
        self._came.append(data)
        self._had += len(data)
        if len(self._came) == 1:
            head, _, _ = data.partition(b"\r\n\r\n")
            _, announced, length = head.lower().partition(b"content-length: ")
            if announced:
                self._ends = len(head) + 4 + int(length.partition(b"\r\n")[0])
        if self._had == self._ends or (self._ends is None and data.endswith(b"0\r\n\r\n")):
            self._over()

    def _over(self) -> None:
        answer = b"".join(self._came)
        tokens = answer.count(TOKEN)
        if not answer.startswith(b"HTTP/1.1 200") or tokens != self._ask.tokens:
            self._fail(f"{tokens} tokens instead of {self._ask.tokens}: {answer[:2000]!r}")
            return
        self._seen.answers += 1
        self._seen.tokens += tokens
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._fail(f"the connection was lost in mid-answer: {error}")

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))
        self._transport.close()


async def load(port: int, ask: Ask, *, at_once: int, times: int = 1, ramp: float = 0.0, pieces: bool = False) -> Seen:
    """Asks `times` times on each of `at_once` connections, which begin within `ramp` seconds.

    Raises RuntimeError for the first answer that is not a whole one.
    """
    seen = Seen(pieces=[] if pieces else None)
    request, loop = ask.rendered(), asyncio.get_running_loop()
    clients = []
    for _ in range(at_once):
        client = _Client(request, ask, times, seen)
        clients.append(client.done)
        await loop.create_connection(lambda it=client: it, "127.0.0.1", port)  # type: ignore[misc]
        if ramp:
            await asyncio.sleep(ramp / at_once)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*clients)
    return seen
