"""A client of a durable stream that comes back, to any replica, until it has seen the stream's end."""

import asyncio
import copy
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, Self

import aiohttp
import msgspec

from proxy.position import Position, read_position
from tests.process import chat
from tests.scenarios.survivors import Survivors

PAUSE = 0.05  # seconds before it comes back


class Place(Protocol):
    """Where it may read."""

    @property
    def url(self) -> str: ...


class Block(NamedTuple):
    """A server-sent event that has a position."""

    position: Position
    data: bytes

    @property
    def said(self) -> Any:
        return msgspec.json.decode(self.data)

    @property
    def marker(self) -> dict[str, Any] | None:
        """What it says of a recovery."""
        if self.data == b"[DONE]":
            return None
        fields = self.said
        told = fields.get("weir") if "choices" in fields else fields
        return told if told and told.get("type") == "data-recovery" else None

    @property
    def text(self) -> str:
        if self.data == b"[DONE]" or not (fields := self.said):
            return ""
        if choices := fields.get("choices"):
            return str(choices[0]["delta"].get("content", ""))
        return str(fields["content"]) if fields.get("type") == "text-delta" else ""

    @property
    def end(self) -> str | None:
        """How the stream ends with it; None if it does not."""
        if self.data == b"[DONE]":
            return "finish"
        fields = self.said
        if "error" in fields and "choices" not in fields and "type" not in fields:
            return str(fields["error"]["code"])
        if fields.get("type") in ("finish", "error", "abort"):
            return str(fields.get("code", fields["type"]))
        return None


class ReturningClient:
    """`blocks` is all that it was given, in order. `length` and `later` are for the upstream (see `PacedUpstream`)."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        replicas: Survivors,
        chance: random.Random,
        name: str,
        *,
        recovery: str = "fail",
        native: bool = False,
        length: int = 40,
        later: int = 20,
    ):
        self.name = name
        self.recovery = recovery
        self.blocks: list[Block] = []
        self.stream_id: str | None = None
        self.connections = 0
        self.told: list[str] = []  # errors that were no part of the stream
        self._session = session
        self._replicas = replicas
        self._chance = chance
        self._native = native
        self._asked = f"{name} {length} {later}"
        self._at: Place | None = None

    @property
    def ended(self) -> str | None:
        return self.blocks[-1].end if self.blocks else None

    async def read(self, *, at: Place | None = None, hop: bool = False) -> None:
        """Reads to the end, at first `at` that replica.

        `hop`: after the first event, elsewhere; so its reader is not where its producer is.
        """
        if hop:
            await self.connect(until=have(1, self))
        while not self.ended:
            await self.connect(at)
            at = None
            if not self.ended:
                await asyncio.sleep(PAUSE)

    async def connect(self, at: Place | None = None, until: Callable[[], bool] = lambda: False) -> None:
        """Reads on from where it is, at another replica than before, for as long as that one tells anything."""
        self._at = at or self._replicas.any(self._chance, but=self._at)
        self.connections += 1
        with suppress(aiohttp.ClientError, OSError):
            async with self._request(self._at.url) as response:
                if response.status == 503:
                    self.told.append(await response.text())
                    if not self.blocks:
                        self.stream_id = None  # it may be that it never began: it is asked for once more
                    return
                assert response.status == 200, f"{self.name}: {response.status} {await response.text()}"
                self.stream_id = response.headers["x-weir-stream-id"]
                await self._take(response, until)

    def again(self) -> Self:
        """Another reader of the same stream, from its beginning."""
        twin = copy.copy(self)
        twin.blocks, twin.told, twin.connections = [], [], 0
        return twin

    def _request(self, url: str) -> Any:
        format = "sse" if self._native else "openai"
        if self.stream_id is not None:
            came = {"last-event-id": str(self.blocks[-1].position)} if self.blocks else {}
            return self._session.get(f"{url}/v1/streams/{self.stream_id}?format={format}", headers=came)
        headers, weir = {"idempotency-key": self.name}, {"durable": True, "recovery": self.recovery}
        body = chat(self._asked, stream=True, weir=weir)
        path = "/api/streaming/chat" if self._native else "/v1/chat/completions"
        return self._session.post(f"{url}{path}", json=body, headers=headers)

    async def _take(self, response: aiohttp.ClientResponse, until: Callable[[], bool]) -> None:
        position: bytes | None = None
        async for line in response.content:
            if line.startswith(b"id: "):
                position = line[4:-1]
            elif line.startswith(b"data: ") and position is not None:
                self.blocks.append(Block(read_position(position.decode()), line[6:-1]))
            elif line.startswith(b"data: "):
                self.told.append(line[6:-1].decode())
            elif line == b"\n":
                position = None
                if until():
                    return


def have(count: int, *clients: ReturningClient) -> Callable[[], bool]:
    """Whether each of them has got so many events."""
    return lambda: all(len(client.blocks) >= count for client in clients)
