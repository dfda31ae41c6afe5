"""A vendor on a loopback port: real HTTP, the vendor's own wire, scripted answers, every request checked and kept.

The scenario is the first part of the path, so that one server plays all of them to any client:
`http://127.0.0.1:port/tools` is a vendor that answers everything with tool calls.
"""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from aiohttp import web

KEY = "test-key-0123456789abcdef"
"""The only key the fakes let in."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What becomes of one request: a refusal if there is an `error` (text is sent as HTML), else a stream of `events`.

    A stream that ends with "reset" breaks when the test sets `FakeVendor.proceed`; "hang" ends when the client does.
    """

    events: Sequence[Json] = ()
    ending: Literal["eof", "reset", "hang"] = "eof"
    status: int = 200
    error: Json | str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A request as the vendor got it; `port` is the client's end of the connection it came on."""

    path: str
    port: int
    headers: Mapping[str, str]
    body: Json


class FakeVendor:
    """Subclasses say which paths they serve, what is wrong with a request, and how an event is written."""

    path: str
    content_type = "text/event-stream"
    answers: Mapping[str, Answer]

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.requests: list[Request] = []
        self.proceed = asyncio.Event()
        self.left = asyncio.Event()
        app = web.Application()
        app.router.add_post("/{scenario}" + self.path, self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    def url(self, scenario: str) -> str:
        """The base URL of the vendor that plays `scenario`."""
        host = f"https://localhost:{self.port}" if self._tls else f"http://127.0.0.1:{self.port}"
        return f"{host}/{scenario}"

    @property
    def body(self) -> Json:
        """The body of the only request there was."""
        assert len(self.requests) == 1, f"the vendor was called {len(self.requests)} times, not once"
        return self.requests[0].body

    def fault(self, request: Request) -> Answer | None:
        """The refusal that `request` deserves, if it is not one this vendor would accept."""
        raise NotImplementedError

    def frame(self, event: Json) -> bytes:
        """`event` as it is written on the wire."""
        raise NotImplementedError

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        assert request.transport is not None
        port = request.transport.get_extra_info("peername")[1]
        seen = Request(request.path_qs, port, headers, json.loads(await request.read()))
        self.requests.append(seen)
        if request.match_info["scenario"] == "reset_at_once":
            _reset(request)
            return web.Response()
        answer = self.fault(seen) or self.answers[request.match_info["scenario"]]
        if isinstance(answer.error, str):
            return web.Response(text=answer.error, content_type="text/html", status=answer.status)
        if answer.error is not None:
            return web.json_response(answer.error, status=answer.status, headers=answer.headers)
        response = web.StreamResponse(headers={"content-type": self.content_type})
        await response.prepare(request)
        for event in answer.events:
            await response.write(self.frame(event))
        await self._end(request, answer)
        return response

    async def _end(self, request: web.Request, answer: Answer) -> None:
        if answer.ending == "reset":
            await self.proceed.wait()
            _reset(request)
        if answer.ending == "hang":
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()


def _reset(request: web.Request) -> None:
    """Breaks the connection with a TCP RST, as a crashed process or an impatient load balancer does."""
    assert request.transport is not None
    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
