"""GET /api/streaming/stats: what streams now, and what has."""

import asyncio

import pytest

from proxy.testing import ScriptedUpstream, begun, text
from tests.server import Server
from tests.sse_reader import streaming

pytestmark = pytest.mark.anyio

PATH = "/api/streaming/stats"


async def test_a_house_in_which_nothing_happened(server: Server) -> None:
    got = await server.ask("GET", PATH)
    assert (got.status, got.body) == (
        200,
        {
            "stale": False,
            "active_streams": 0,
            "active_sessions": 0,
            "websocket": {"connections": 0, "messages_in": 0, "messages_out": 0},
            "modes": {},
            "providers": {},
        },
    )


async def test_what_runs_and_what_has_run(server: Server) -> None:
    async with ScriptedUpstream([*begun("one"), asyncio.Event()], text("hi")) as upstream:
        await server.register(upstream)
        async with streaming(server.url, generator_mode="buffered", session_id="s1") as reader:
            await reader.next()
            body = (await server.ask("GET", PATH)).body
            assert (body["active_streams"], body["active_sessions"]) == (1, 1)
            assert body["modes"]["buffered"]["active_streams"] == 1
            await server.ask("POST", f"/api/streaming/streams/{reader.stream_id}/cancel")
            await reader.until("abort")
            await server.ask("POST", f"/api/streaming/streams/{reader.stream_id}/feedback", {"rating": "down"})
        async with streaming(server.url) as reader:
            await reader.until("finish")
        body = (await server.ask("GET", PATH)).body
        assert body["active_streams"] == 0
        assert {name: mode["total_requests"] for name, mode in body["modes"].items()} == {"buffered": 1, "standard": 1}
        assert body["providers"]["main"]["total_requests"] == 2
        assert body["providers"]["main"]["feedback"] == {"down": 1}
        assert body["providers"]["main"]["average_response_ms"] > 0


async def test_without_redis_the_figures_are_stale(server: Server) -> None:
    server.weir.store.away = True
    got = await server.ask("GET", PATH)
    assert (got.status, got.body["stale"], got.body["active_sessions"]) == (200, True, None)
