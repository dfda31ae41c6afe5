"""A call's own way over the session, against a server that says what it is told to."""

import gzip
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from proxy.adapters.litellm_call import UpstreamCall
from proxy.errors import Kind, ProviderError
from proxy.provider import ProviderConfig

pytestmark = pytest.mark.anyio

CONFIG = ProviderConfig(provider_id="p", provider_type="gemini", model_name="m")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server that answers with the body of the request."""

    async def echo(request: web.Request) -> web.Response:
        body, packed = await request.read(), "gzip" in request.query
        headers = {"content-encoding": "gzip"} if packed else {}
        return web.Response(
            body=gzip.compress(body) if packed else body, content_type="text/event-stream", headers=headers
        )

    app = web.Application()
    app.router.add_post("/", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def payloads(url: str, body: bytes) -> list[bytes]:
    async with aiohttp.ClientSession() as session:
        call = UpstreamCall(session, CONFIG)
        try:
            await call.post(url, {}, body)
            return [payload async for some in call.payloads() for payload in some]
        finally:
            call.close()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'data: {"a": 1}\n\ndata: {"b": 2}\n\n', [b'{"a": 1}', b'{"b": 2}']),
        (b'event: a\r\ndata: {"a": "\xe2\x80\xa8"}\r\n\r\n: comment\r\n\r\n', [b'{"a": "\xe2\x80\xa8"}']),
        (b'data: {"a": 1}\n\ndata: {"b": 2}\n', [b'{"a": 1}', b'{"b": 2}']),
        (b'data: {"a": 1}\n\ndata: {"b": 2}', [b'{"a": 1}', b'{"b": 2}']),
        (b'data: {"a": 1}\n\ndata: {"b": {"c": 2}', [b'{"a": 1}']),
        (b"", []),
    ],
)
async def test_events_are_read_to_the_end_of_the_body(url: str, body: bytes, expected: list[bytes]) -> None:
    """What comes last counts even without the line's end, but not where it has been cut."""
    assert await payloads(url, body) == expected


async def test_a_body_that_is_compressed_all_the_same_is_read(url: str) -> None:
    assert await payloads(f"{url}?gzip", b'data: {"a": 1}\n\n') == [b'{"a": 1}']


async def test_an_event_without_end_is_garbled(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.sse.MAX_EVENT", 10)
    with pytest.raises(ProviderError) as caught:
        await payloads(url, b"data: " + b"x" * 1_000_000)
    assert caught.value.kind is Kind.GARBLED
