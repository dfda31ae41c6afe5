"""An upstream that never says the same thing twice, at a steady pace, and remembers what it said: an oracle.

It costs little (one timer, no HTTP library), so that what a test measures is Weir. What it is to say stands in the
request's first message: `river 40 12` is a stream named river, whose first answer has 40 tokens and all later ones 12.
After -40 it would have 40, too, and then say no more without coming to an end.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

import msgspec

PACE = 0.05  # seconds between two tokens of an answer
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Said:
    """One answer: which of its stream's it is, what it was to go on with, and what was sent of it."""

    def __init__(self, name: str, number: int, length: int, prefill: str):
        self.name = name
        self.number = number
        self.length = length
        self.prefill = prefill
        self.tokens: list[str] = []
        self.complete = False
        self.cut = False  # its reader left before that

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    def next(self) -> bytes:
        """One more token, as a chunk; the answer's end after the last one."""
        if len(self.tokens) == -self.length:
            return b""
        if len(self.tokens) == self.length:
            self.complete = True
            return self._chunk({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
        self.tokens.append(f" {self.name}.{self.number}:{len(self.tokens)}")
        return self._chunk({"content": self.tokens[-1]}, None)

    def _chunk(self, delta: dict[str, str], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        fields = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "paced"}
        data = b"data: %b\n\n" % msgspec.json.encode({**fields, "choices": [choice]})
        return b"%x\r\n%b\r\n" % (len(data), data)


class PacedUpstream:
    """A context manager. `answers` has, by name of the stream, all that was asked for it, in order."""

    def __init__(self, pace: float = PACE) -> None:
        self.answers: defaultdict[str, list[Said]] = defaultdict(list)
        self.url = ""
        self._pace = pace
        self._running: set[_Connection] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        self._speaking = asyncio.create_task(self._speak())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._speaking.cancel()
        with suppress(asyncio.CancelledError):
            await self._speaking
        self._server.close()

    def asked(self, messages: Sequence[dict[str, Any]], connection: "_Connection") -> Said:
        name, first, later = messages[0]["content"].split()
        answers = self.answers[name]
        prefill = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
        said = Said(name, len(answers) + 1, int(later if answers else first), prefill)
        answers.append(said)
        self._running.add(connection)
        return said

    def over(self, connection: "_Connection") -> None:
        self._running.discard(connection)

    async def _speak(self) -> None:
        while True:
            await asyncio.sleep(self._pace)
            for connection in list(self._running):
                connection.speak()


class _Connection(asyncio.Protocol):
    def __init__(self, upstream: PacedUpstream):
        self._upstream = upstream
        self._said: Said | None = None
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, blank, body = self._read.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if blank and len(body) >= length:
            self._read = b""
            self._transport.write(_HEAD)
            self._said = self._upstream.asked(msgspec.json.decode(body)["messages"], self)

    def speak(self) -> None:
        assert self._said is not None
        self._transport.write(self._said.next())
        if self._said.complete:
            self._upstream.over(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._upstream.over(self)
        if self._said is not None and not self._said.complete:
            self._said.cut = True
