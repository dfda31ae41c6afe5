"""Weir under a real uvicorn in the test's own event loop: whether a stream streams shows only on a real socket."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import openai
import uvicorn
from multidict import CIMultiDictProxy

from proxy.app import create_app
from proxy.connection import Connection
from proxy.settings import Settings
from proxy.testing import ScriptedUpstream
from proxy.websocket import OPTIONS
from proxy.weir import Weir

KEY = "sk-upstream-0123456789abcdef"  # what every upstream is registered with, and no client may ever see
LIMIT = 10.0  # seconds: a bound on what a busy machine may take, never a measurement


class Answered(NamedTuple):
    """What a client got; `body` is what its JSON says, or bytes."""

    status: int
    headers: CIMultiDictProxy[str]
    body: Any

    @property
    def message(self) -> str:
        """What an error says, once its shape has been found to be OpenAI's."""
        error = self.body["error"]
        assert set(error) == {"message", "type", "param", "code"}, f"{self.body} is not in OpenAI's shape"
        assert all((error["message"], error["type"], error["code"])), f"half an error: {error}"
        assert self.headers["content-type"] == "application/json"
        return str(error["message"])


class Server:
    """A serving Weir, and a client of it. `headers` go with every request of `ask`, `stream` and `register`."""

    def __init__(self, port: int, weir: Weir, session: aiohttp.ClientSession):
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.weir = weir
        self.session = session
        self.headers: dict[str, str] = {}

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answered:
        """One request; `body` is sent as JSON unless it is bytes. Underscores in header names become hyphens."""
        async with asyncio.timeout(LIMIT), self.session.request(method, **self._request(path, body, headers)) as got:
            data = await got.read()
            is_json = data and got.content_type == "application/json"
            return Answered(got.status, got.headers, msgspec.json.decode(data) if is_json else data)

    @asynccontextmanager
    async def stream(self, body: Any, **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """A chat that is still being read."""
        request = self._request("/v1/chat/completions", {"stream": True, **body}, headers)
        async with asyncio.timeout(LIMIT), self.session.post(**request) as response:
            yield response

    async def streamed(self, **fields: Any) -> list[bytes]:
        """The data of every event of one streamed chat."""
        async with self.stream(chat(**fields)) as response:
            assert response.status == 200, await response.text()
            return [line[6:] for line in (await response.read()).split(b"\n") if line.startswith(b"data: ")]

    async def register(self, upstream: ScriptedUpstream | str, provider_id: str = "main", **fields: Any) -> Answered:
        url = upstream if isinstance(upstream, str) else upstream.url
        return await self.ask("POST", "/providers", provider(url, provider_id, **fields))

    async def raw(self, request: bytes) -> tuple[int, bytes]:
        """What is answered to bytes that no client library would send: the status, and the body."""
        async with asyncio.timeout(LIMIT):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
            body = await reader.readexactly(int(length or 0))
            writer.close()
            return int(head.split()[1]), body

    @asynccontextmanager
    async def openai(self) -> AsyncIterator[openai.AsyncOpenAI]:
        """The SDK, unmodified, without its retries and without the environment's proxies."""
        direct = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=LIMIT, http_client=direct
        ) as client:
            yield client

    def _request(self, path: str, body: Any, headers: dict[str, str]) -> dict[str, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        return {"url": self.url + path, "data": data, "headers": {**self.headers, **named}}


@asynccontextmanager
async def serving(
    path: Path | None = None, *, ws: Mapping[str, Any] = OPTIONS, **settings: Any
) -> AsyncIterator[Server]:
    """Weir on a free loopback port; `settings` are fields of Settings, `path` is its providers.yaml.

    `ws` is what uvicorn is told about WebSockets.
    """
    app = create_app(Settings(**settings), path)
    config = uvicorn.Config(app, port=0, http=Connection, log_config=None, access_log=False, server_header=False, **ws)
    async with running(config) as port, aiohttp.ClientSession() as session:
        yield Server(port, app.state.weir, session)


@asynccontextmanager
async def running(config: uvicorn.Config) -> AsyncIterator[int]:
    """A uvicorn in this event loop, with its application's lifespan: the port it listens on."""
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    assert server.started, "the application's start-up failed"
    try:
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:  # as server.shutdown(), without its naps
        for listening in server.servers:
            listening.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await asyncio.gather(*server.server_state.tasks, return_exceptions=True)
        await server.lifespan.shutdown()


def chat(text: str = "hi", model: str = "main", **fields: Any) -> dict[str, Any]:
    """The body of a chat completions request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def provider(url: str, provider_id: str = "main", **fields: Any) -> dict[str, Any]:
    """A registration that is not retried unless `fields` say so."""
    least = {"provider_id": provider_id, "provider_type": "openai_compatible", "model_name": "m", "base_url": url}
    return {**least, "api_key": KEY, "retry": {"max_attempts": 1}, **fields}
