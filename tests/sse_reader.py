"""A reader of the streaming API: the guide's events, as they come over a real socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

LIMIT = 20.0  # seconds: a bound on what a busy machine may take, never a measurement


class Reader:
    """`stream_id` is what the controls are for. Reads event by event; `events` are those read so far."""

    def __init__(self, response: aiohttp.ClientResponse):
        self.stream_id = response.headers["x-weir-stream-id"]
        self.events: list[dict[str, Any]] = []
        self._lines = response.content

    async def next(self) -> dict[str, Any]:
        """The next event; comments are passed over."""
        async with asyncio.timeout(LIMIT):
            while not (line := await self._lines.readline()).startswith(b"data: "):
                assert line, f"the stream broke off after {self.events}"
        self.events.append(msgspec.json.decode(line[6:]))
        return self.events[-1]

    async def until(self, kind: str) -> dict[str, Any]:
        """Reads up to an event of that type."""
        while (event := await self.next())["type"] != kind:
            pass
        return event

    @property
    def text(self) -> str:
        return "".join(event["content"] for event in self.events if event["type"] == "text-delta")


@asynccontextmanager
async def streaming(url: str, text: str = "hi", **fields: Any) -> AsyncIterator[Reader]:
    """A chat of the streaming API at `url`, which is being read."""
    body = {"messages": [{"role": "user", "content": text}], "provider_id": "main", **fields}
    data = msgspec.json.encode(body)
    async with aiohttp.ClientSession() as session, session.post(f"{url}/api/streaming/chat", data=data) as response:
        assert response.status == 200, await response.text()
        yield Reader(response)
