"""The handshake: whose pages may connect, with which key, and how the others are told."""

import base64
import logging
from typing import Any

import msgspec
import pytest
import websockets

from proxy.testing import ScriptedUpstream, hang_after
from tests.server import Server, serving
from tests.socket_client import connected, handshake

pytestmark = pytest.mark.anyio

CLIENT, ADMIN = "a-key-of-Zoe", "the-admin-key"


def as_subprotocol(key: str) -> str:
    return "weir.key." + base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


async def refused(server: Server, path: str = "/api/streaming/ws/ann", **options: Any) -> tuple[int, dict[str, Any]]:
    """The status of the refusal, and the error in its body."""
    before = list(server.weir.sockets)
    with pytest.raises(websockets.InvalidStatus) as caught:
        await websockets.connect(f"ws{server.url.removeprefix('http')}{path}", proxy=None, **options)
    response = caught.value.response
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = msgspec.json.decode(response.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert list(server.weir.sockets) == before
    return response.status_code, error


async def test_the_greeting_says_whose_socket_it_is() -> None:
    async with serving() as server, connected(server.url, "an%20n", "s1") as client:
        assert client.first["data"].pop("connection_id")
        assert client.first == {"message_type": "connected", "data": {"user_id": "an n", "session_id": "s1"}}


async def test_a_session_is_made_where_none_is_named() -> None:
    async with (
        serving() as server,
        connected(server.url, session=None) as one,
        connected(server.url, session="") as two,
    ):
        sessions = [client.first["data"]["session_id"] for client in (one, two)]
    assert all(len(session) >= 20 for session in sessions)
    assert len(set(sessions)) == 2


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/api/streaming/ws/ann?session_id=no%20good", "session_id"),
        ("/api/streaming/ws/ann?session_id=" + "x" * 129, "session_id"),
        ("/api/streaming/ws/" + "x" * 201, "user_id"),
    ],
)
async def test_names_that_cannot_be_are_refused(path: str, param: str) -> None:
    async with serving() as server:
        status, error = await refused(server, path)
    assert (status, error["param"]) == (400, param)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://localhost.evil.example", "nonsense", "//[bad"]
)
async def test_a_foreign_page_is_refused_before_the_handshake(origin: str) -> None:
    async with serving() as server:
        status, error = await refused(server, origin=origin)
    assert (status, error["code"]) == (403, "foreign_origin")


async def test_who_is_refused_leaves_nothing_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        await refused(server, origin="https://evil.example")
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1", "http://127.0.0.1:3000", "http://localhost:3000"])
async def test_our_own_pages_and_programs_are_let_in(origin: str | None) -> None:
    async with serving() as server, connected(server.url, origin=origin):
        pass


@pytest.mark.parametrize("origins", ["https://chat.example", "https://other.example, https://Chat.example/", "*"])
async def test_pages_that_the_operator_names_are_let_in(origins: str) -> None:
    key = {"authorization": f"Bearer {ADMIN}"}
    async with (
        serving(api_keys=ADMIN, origins=origins) as server,
        connected(server.url, origin="https://chat.example", additional_headers=key),
    ):
        if origins != "*":
            status, _ = await refused(server, origin="https://chat.example:8443", additional_headers=key)
            assert status == 403


async def test_a_key_comes_in_a_header_or_as_a_subprotocol() -> None:
    async with serving(api_keys=CLIENT) as server:
        async with connected(server.url, additional_headers={"x-api-key": CLIENT}) as one:
            assert one.connection.subprotocol is None
        async with connected(server.url, subprotocols=["weir", as_subprotocol(CLIENT)]) as two:
            assert two.connection.subprotocol == "weir", "the key must not be sent back"


@pytest.mark.parametrize(
    "offered",
    [[], ["weir"], ["weir", as_subprotocol("another")], ["weir", "weir.key."], ["weir", "weir.key.%%%"], [CLIENT[:5]]],
    ids=["nothing", "no key", "wrong", "empty", "garbage", "bare"],
)
async def test_without_a_right_key_nobody_is_let_in(offered: list[Any]) -> None:
    async with serving(api_keys=CLIENT) as server:
        status, error = await refused(server, subprotocols=offered or None)
        assert (status, error["code"]) == (401, "invalid_api_key")
        status, _ = await refused(server, f"/api/streaming/ws/ann?key={CLIENT[:5]}&api_key={CLIENT[:5]}")
        assert status == 401, "a key in the URL would stand in every log"


async def test_without_client_keys_the_route_is_closed() -> None:
    async with serving(admin_key=ADMIN) as server:
        status, error = await refused(server, subprotocols=["weir", as_subprotocol(ADMIN)])
    assert (status, error["code"]) == (403, "route_closed")


async def test_without_any_keys_only_this_machine_is_served() -> None:
    async with serving(origins="*") as server:
        status, body = await server.raw(handshake().replace(b"host: localhost", b"host: weir.example"))
        assert (status, msgspec.json.decode(body)["error"]["code"]) == (403, "no_keys")
        status, error = await refused(server, origin="https://chat.example")
        assert (status, error["code"]) == (403, "no_keys")


async def test_the_key_says_whose_streams_they_are() -> None:
    """Those of a key are controlled with the same key, however it came."""
    headers = {"authorization": f"Bearer {ADMIN}"}
    async with (
        serving(api_keys=f"{CLIENT},{ADMIN}", admin_key=ADMIN) as server,
        ScriptedUpstream(hang_after(1)) as upstream,
        connected(server.url, subprotocols=["weir", as_subprotocol(ADMIN)]) as client,
    ):
        server.headers = headers
        await server.register(upstream)
        await client.ask("r")
        await client.until("text-delta")
        (stream_id,) = server.weir.pipeline.live
        path = f"/api/streaming/streams/{stream_id}/cancel"
        other = {"authorization": f"Bearer {CLIENT}"}
        assert (await server.ask("POST", path, {}, **other)).status == 404
        assert (await server.ask("POST", path, {})).status == 200
        await client.until("abort")


async def test_an_admin_can_have_a_socket_traced() -> None:
    key = {"authorization": f"Bearer {CLIENT}"}
    async with serving(api_keys=CLIENT, admin_key=ADMIN) as server, ScriptedUpstream(hang_after(1)) as upstream:
        server.headers = {"authorization": f"Bearer {ADMIN}"}
        await server.register(upstream)
        status, error = await refused(server, additional_headers={**key, "x-weir-debug": "wrong"})
        assert (status, error["code"]) == (403, "not_an_admin")
        async with connected(server.url, additional_headers={**key, "x-weir-debug": ADMIN}) as client:
            await client.ask()
            await client.until("text-delta")
            (stream,) = server.weir.pipeline.live.values()
            assert stream.journey.traced


async def test_a_request_that_has_lost_its_upgrade_is_told_so() -> None:
    async with serving() as server:
        answered = await server.ask("GET", "/api/streaming/ws/ann")
    assert (answered.status, answered.body["error"]["code"]) == (426, "upgrade_required")
    assert "proxy on the way" in answered.message
