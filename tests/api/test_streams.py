"""Controls over REST. What they do is told in tests/test_control.py and tests/scenarios/test_talking_back.py."""

import asyncio

import pytest

from proxy.testing import ScriptedUpstream, begun
from tests.server import Server
from tests.sse_reader import streaming

pytestmark = pytest.mark.anyio

PATH = "/api/streaming/streams"


async def test_a_control_answers_with_its_position(server: Server) -> None:
    async with ScriptedUpstream([*begun("one"), asyncio.Event()]) as upstream:
        await server.register(upstream)
        async with streaming(server.url) as reader:
            await reader.until("text-delta")
            got = await server.ask("POST", f"{PATH}/{reader.stream_id}/cancel")
            assert (got.status, got.body) == (
                200,
                {"stream_id": reader.stream_id, "action": "cancel", "position": 3},
            )
            assert (await reader.until("abort"))["seq"] == 3


async def test_streams_of_the_openai_api_can_be_controlled_too(server: Server) -> None:
    async with ScriptedUpstream([*begun("one"), asyncio.Event()]) as upstream:
        await server.register(upstream)
        async with server.stream({"model": "main", "messages": [{"role": "user", "content": "hi"}]}) as response:
            stream_id = response.headers["x-weir-stream-id"]
            assert (await server.ask("POST", f"{PATH}/{stream_id}/cancel")).status == 200
            assert b"cancelled by its reader" in await response.read()


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("cancel", b"", 404),
        ("cancel", b"[]", 400),
        ("cancel", b"{", 400),
        ("dance", b"{}", 400),
        ("steer", b"{}", 400),
        ("feedback", b'{"rating": 5}', 400),
    ],
)
async def test_bad_input_is_told(action: str, body: bytes, status: int, server: Server) -> None:
    got = await server.ask("POST", f"{PATH}/nobody-1/{action}", body)
    assert got.status == status, got.body
    assert got.message


async def test_another_key_does_not_find_it(guarded: Server) -> None:
    ours, theirs = ({"authorization": f"Bearer {key}"} for key in ("client-key-1", "client-key-2"))
    async with ScriptedUpstream([*begun("one"), asyncio.Event()]) as upstream:
        guarded.headers = {"authorization": "Bearer admin-key-1"}
        await guarded.register(upstream)
        guarded.headers = {}
        async with guarded.stream({"model": "main", "messages": [{"role": "user", "content": "hi"}]}, **ours) as it:
            path = f"{PATH}/{it.headers['x-weir-stream-id']}/cancel"
            assert (await guarded.ask("POST", path, {}, **theirs)).status == 404
            assert (await guarded.ask("POST", path, {}, **ours)).status == 200
