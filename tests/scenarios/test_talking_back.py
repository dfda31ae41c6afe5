"""A reader on one replica speaks back through another: real processes, one real Redis."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.testing import ScriptedUpstream, begun, text
from tests.process import Weir, call, provider, replicas, until
from tests.redis_server import RedisServer
from tests.sse_reader import streaming

pytestmark = pytest.mark.anyio


@pytest.fixture
async def two(tmp_path: Path, redis: RedisServer) -> AsyncIterator[list[Weir]]:
    async with replicas(tmp_path, redis.url, 2) as started:
        yield started


async def register(replicas: list[Weir], upstream: ScriptedUpstream, provider_id: str = "main") -> None:
    """Returns when every replica serves it."""
    assert (await call(f"{replicas[0].url}/providers", provider(upstream.url, provider_id)))[0] == 201
    for replica in replicas:

        async def serves(url: str = replica.url) -> bool:
            return (await call(f"{url}/providers/{provider_id}"))[0] == 200

        await until(serves, "the registration did not arrive")


async def control(replica: Weir, stream_id: str, action: str, **data: Any) -> tuple[int, Any]:
    return await call(f"{replica.url}/api/streaming/streams/{stream_id}/{action}", data)


async def test_a_stream_is_controlled_from_another_replica(two: list[Weir]) -> None:
    here, there = two
    more = asyncio.Event()
    scripts = [[*begun("one", "two"), more, *text("never")[2:]], text("in French")]
    async with ScriptedUpstream(*scripts) as upstream:
        await register(two, upstream)
        async with streaming(here.url) as reader:
            await reader.until("text-delta")
            last = await reader.until("text-delta")
            status, paused = await control(there, reader.stream_id, "pause")
            assert (status, paused["position"]) == (200, last["seq"])
            assert (await control(there, reader.stream_id, "resume"))[0] == 200
            status, steered = await control(there, reader.stream_id, "steer", instruction="in French")
            assert status == 200, steered
            marker = await reader.until("data-steer")
            assert steered["position"] == marker["seq"], "the position told is not that of the marker"
            await reader.until("finish")
            assert reader.text == "onetwoin French"
        assert upstream.requests[1].body["messages"][1:] == [
            {"role": "assistant", "content": "onetwo"},
            {"role": "user", "content": "in French"},
        ]


async def test_a_cancel_from_another_replica_ends_the_upstream_call(two: list[Weir]) -> None:
    here, there = two
    async with ScriptedUpstream([*begun("one"), asyncio.Event()]) as upstream:
        await register(two, upstream)
        async with streaming(here.url) as reader:
            await reader.until("text-delta")
            status, cancelled = await control(there, reader.stream_id, "cancel", reason="enough")
            assert status == 200
            last = await reader.until("abort")
            assert (last["reason"], last["seq"]) == ("enough", cancelled["position"])
            await upstream.disconnected()
        assert (await control(there, reader.stream_id, "cancel"))[0] == 409, "it had ended"
        status, rated = await control(there, reader.stream_id, "feedback", rating="up", position=2)
        assert (status, rated["position"]) == (200, 2)

        async def counted() -> bool:
            _, stats = await call(f"{there.url}/api/streaming/stats")
            return bool(stats["providers"]["main"]["feedback"] == {"up": 1})

        await until(counted, "the rating was not counted on the other replica")


async def test_a_stream_of_a_dead_replica_is_not_found(two: list[Weir]) -> None:
    here, there = two
    async with ScriptedUpstream([*begun("one"), asyncio.Event()]) as upstream:
        await register(two, upstream)
        async with streaming(here.url) as reader:
            await reader.until("text-delta")
            here.process.kill()
            await here.ended()

            async def gone() -> bool:
                status, _ = await control(there, reader.stream_id, "cancel")
                assert status in (404, 503, 504), f"a dead replica's stream answers {status}"
                return status == 404

            await until(gone, "a 404")
        assert (await control(there, "nobody-0123", "cancel"))[0] == 404


async def test_a_conversation_goes_on_at_another_replica_and_is_a_503_without_redis(
    two: list[Weir], redis: RedisServer
) -> None:
    here, there = two
    async with ScriptedUpstream(text("one"), text("two"), text("three")) as upstream:
        await register(two, upstream)
        chat = {"session_id": "s1", "user_id": "u1"}
        async with streaming(here.url, "first", **chat) as reader:
            await reader.until("finish")
        async with streaming(there.url, "second", **chat) as reader:
            await reader.until("finish")
        assert upstream.requests[1].body["messages"] == [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "one"},
            {"role": "user", "content": "second"},
        ]
        _, session = await call(f"{here.url}/api/streaming/sessions/s1?user_id=u1")
        assert session["totals"]["turns"] == 2
        assert (await call(f"{here.url}/api/streaming/sessions/s1?user_id=u2"))[0] == 404, "somebody else's session"
        redis.kill()
        body = {"messages": [{"role": "user", "content": "third"}], "provider_id": "main"}
        status, error = await call(f"{there.url}/api/streaming/chat", {**body, **chat})
        assert (status, error["error"]["code"]) == (503, "store_unavailable")
        assert len(upstream.requests) == 2, "the provider was asked all the same"
        async with streaming(there.url, "no session") as reader:  # what needs no Redis goes on
            await reader.until("finish")
