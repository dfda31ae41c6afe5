"""Answers are JSON, and every failure has OpenAI's shape: an SDK raises it as what it is."""

import json

import openai
import pytest

from proxy.api.responses import json_response
from tests.server import Server

pytestmark = pytest.mark.anyio


def test_an_answer_says_that_it_is_json() -> None:
    answer = json_response({"a": "漢"}, 418, {"x-a": "1"})
    assert (answer.status_code, bytes(answer.body)) == (418, '{"a":"漢"}'.encode())
    assert (answer.headers["content-type"], answer.headers["x-a"]) == ("application/json", "1")
    assert json.loads(bytes(json_response(None).body)) is None


@pytest.mark.parametrize(
    "path", ["/", "/nowhere", "/v1", "/v1/completions", "/v1/%zz", "/%00", "/a%0d%0ab", "/favicon.ico"]
)
async def test_an_unknown_route_is_a_404(path: str, server: Server) -> None:
    code, body = await server.raw(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    error = json.loads(body)["error"]
    assert (code, error["code"], error["type"]) == (404, "not_found", "invalid_request_error")
    assert error["message"].startswith("there is no route /")


async def test_an_sdk_that_asks_elsewhere_is_told_where_to_ask(server: Server) -> None:
    """The base URL of another proxy, or an API that Weir does not speak."""
    async with server.openai() as client:
        with pytest.raises(openai.NotFoundError, match="base URL ends in /v1"):
            await client.with_options(base_url=server.url).models.retrieve("m")
        with pytest.raises(openai.NotFoundError, match="chat completions only"):
            await client.responses.create(model="m", input="hi")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/chat/completions", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/main", "GET"),
        ("PUT", "/providers/main", "GET"),
        ("POST", "/providers/health", "GET"),
        ("POST", "/health/ready", "GET"),
        ("TRACE", "/health/live", "GET"),
    ],
)
async def test_a_wrong_method_is_a_405(method: str, path: str, allowed: str, server: Server) -> None:
    got = await server.ask(method, path)
    assert (got.status, got.body["error"]["code"]) == (405, "method_not_allowed")
    assert got.message == f"{method} is not possible on {path}"
    assert allowed in got.headers["allow"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/providers"])
async def test_head_is_a_405_without_a_body(path: str, server: Server) -> None:
    got = await server.ask("HEAD", path)
    assert (got.status, got.body) == (405, b"")
    assert got.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_a_balancer_may_probe_with_head(path: str, server: Server) -> None:
    assert (await server.ask("HEAD", path)).status == 200


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/v1/models/", "/v1/chat/completions/"])
async def test_nothing_is_served_or_redirected_by_the_way(path: str, server: Server) -> None:
    assert (await server.ask("GET", path)).status == 404


async def test_a_huge_header_is_no_trouble(server: Server) -> None:
    request = b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\nx-huge: " + b"x" * 1_000_000 + b"\r\n\r\n"
    assert (await server.raw(request))[0] in (400, 404, 431)


async def test_openais_sdk_raises_each_as_its_own_kind(server: Server) -> None:
    async with server.openai() as client:
        with pytest.raises(openai.NotFoundError, match="available") as caught:
            await client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "hi"}])
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError, match="messages"):
            await client.chat.completions.create(model="nobody", messages=[])
