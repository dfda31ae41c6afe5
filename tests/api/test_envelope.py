"""What every answer has, whatever becomes of its request."""

import logging
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from proxy.api.envelope import Envelope
from proxy.testing import refuse
from tests.server import Server, chat

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/models", None, 200),
        ("GET", "/health/live", None, 200),
        ("GET", "/providers", None, 200),
        ("GET", "/nowhere", None, 404),
        ("GET", "/v1/nowhere", None, 404),
        ("DELETE", "/v1/models", None, 405),
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", chat(model="nobody"), 404),
        ("POST", "/v1/chat/completions", chat(), 502),
    ],
)
async def test_every_answer_is_headed(method: str, path: str, body: Any, status: int, server: Server) -> None:
    await server.register(refuse())
    got = await server.ask(method, path, body, x_request_id="mine")
    assert (got.status, got.headers["x-request-id"]) == (status, "mine")
    tried = ("main", "1") if status == 502 else ("none", "0")
    assert (got.headers["x-weir-provider"], got.headers["x-weir-attempts"]) == tried
    assert len(got.headers.getall("x-request-id")) == 1


@pytest.mark.parametrize("given", ["a", "A-b_c.9", "x" * 128])
async def test_a_sane_id_is_given_back(given: str, server: Server) -> None:
    assert (await server.ask("GET", "/health/live", x_request_id=given)).headers["x-request-id"] == given


@pytest.mark.parametrize(
    "given", [b"", b"a b", b"x" * 129, b"x" * 100_000, b"\xff", b"a;b", b"<script>", b"a\tb", b"a/b"]
)
async def test_any_other_is_replaced(given: bytes, server: Server) -> None:
    sent: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        sent.append(scope["state"]["id"])

    async def send(message: Any) -> None:
        sent.append(dict(message["headers"])[b"x-request-id"].decode())

    async def receive() -> Any:
        raise AssertionError

    await Envelope(app)({"type": "http", "headers": [(b"x-request-id", given)], "path": "/"}, receive, send)
    told, known = sent
    assert told == known, "the route knows the request by another id"
    assert len(told) == 32
    assert told.isalnum()


async def test_a_line_break_in_an_id_is_no_header_at_all(server: Server) -> None:
    for given in (b"a\rb", b"a\x00b", b"a\r\nx-injected: 1"):
        request = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nx-request-id: %b\r\n\r\n" % given
        code, body = await server.raw(request)
        assert code in (200, 400)
        assert b"injected" not in body


async def test_ids_that_are_made_differ(server: Server) -> None:
    made = {(await server.ask("GET", "/health/live")).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3


async def test_a_bug_of_ours_is_a_500_without_details(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise KeyError("a secret of the house")

    monkeypatch.setattr(server.weir.router, "models", broken)
    got = await server.ask("GET", "/v1/models", x_request_id="mine")
    assert (got.status, "secret" in got.message, got.headers["x-request-id"]) == (500, False, "mine")
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.message == "request mine failed"
    assert record.exc_info is not None
