"""What was asked for from the start, row by row: SDKs, REST, and replicas that share what they know."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest

from proxy.testing import ScriptedUpstream, refuse, status, text
from tests.process import Weir, call, chat, provider, replicas, until
from tests.redis_server import RedisServer
from tests.server import serving

pytestmark = pytest.mark.anyio

STREAMING = "/api/streaming/chat"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[list[Weir]]:
    """Two replicas, in processes of their own, on one real Redis."""
    with RedisServer() as redis:
        async with replicas(tmp_path_factory.mktemp("two"), redis.url, 2) as started:
            yield started


async def test_c1_unmodified_openai_sdks_work_against_the_proxy_url() -> None:
    """Unmodified OpenAI SDKs work against the proxy URL."""
    async with serving() as server:
        model = {"provider_id": "local", "provider_type": "local", "model_name": "SmolLM2-135M-Instruct"}
        await server.ask("POST", "/providers", model)

        def blocking() -> str:
            with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
                answer = client.chat.completions.create(
                    model="local", messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
                )
                return answer.choices[0].message.content or ""

        assert (await asyncio.to_thread(blocking)).strip()
        async with server.openai() as client:
            stream = await client.chat.completions.create(
                model="local", messages=[{"role": "user", "content": "Say hello."}], max_tokens=8, stream=True
            )
            chunks = [chunk async for chunk in stream]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip()
            assert chunks[-1].choices[0].finish_reason in ("stop", "length")
            with pytest.raises(openai.NotFoundError, match="local"):
                await client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "hi"}])


async def test_c2_providers_change_over_rest_on_every_replica_at_once(two: list[Weir]) -> None:
    """Providers can be registered, listed, changed and removed over REST while it runs, on every replica at once."""
    here, there = two

    async def known() -> Any:
        _, body = await call(f"{there.url}/providers")
        return {it["provider_id"]: it["model_name"] for it in body["providers"]}

    async def becomes(expected: dict[str, str]) -> None:
        async def does() -> bool:
            return bool(await known() == expected)

        await until(does, f"the other replica knows {expected}", 2)

    assert (await call(f"{here.url}/providers/register", provider(refuse(), "c2")))[0] == 201
    await becomes({"c2": "m"})
    assert (await call(f"{here.url}/providers/c2", {"model_name": "other"}, "PATCH"))[0] == 200
    await becomes({"c2": "other"})
    assert (await call(f"{here.url}/providers/c2", method="DELETE"))[0] == 200
    await becomes({})


async def test_c3_health_is_the_same_on_every_replica(two: list[Weir]) -> None:
    """`GET /providers/health` shows each provider's state and figures, the same on every replica."""
    async with ScriptedUpstream(text("hi")) as upstream:
        await call(f"{two[0].url}/providers", provider(upstream.url, "c3"))
        for replica in two:
            await _serves(replica, "c3")

        async def total(replica: Weir) -> Any:
            _, body = await call(f"{replica.url}/providers/health")
            found = body["providers"]["c3"]
            return found["state"], found["total"]["requests"], found["total"]["output_tokens"]

        async def agree() -> bool:
            first, second = [await total(replica) for replica in two]
            return bool(first == second == ("healthy", len(upstream.requests), 2 * len(upstream.requests)))

        await until(agree, "both tell what both have counted", 2)
        await call(f"{two[0].url}/providers/c3", method="DELETE")


async def test_c4_redis_holds_sessions_and_stats_or_an_embedded_store_does(two: list[Weir]) -> None:
    """Redis holds session state and provider stats; replicas share them; without a Redis URL an embedded store
    serves one process."""
    async with ScriptedUpstream(text("hello")) as upstream:
        await call(f"{two[0].url}/providers", provider(upstream.url, "c4"))
        for replica in two:
            await _serves(replica, "c4")
        said = len(upstream.requests)
        for replica, words in zip(two, ("one", "two"), strict=True):
            await _streamed(replica.url, words, provider_id="c4")
        assert _heard(upstream, said + 1) == ["one", "hello", "two"], "the other replica does not know the session"
        _, stats = await call(f"{two[1].url}/api/streaming/stats")
        assert stats["active_sessions"] == 1

    async with ScriptedUpstream(text("hello")) as upstream, serving() as alone:
        await alone.register(upstream)
        for words in ("one", "two"):
            await _streamed(alone.url, words, provider_id="main")
        assert _heard(upstream, 1) == ["one", "hello", "two"], "without Redis there are no sessions"
        stats = (await alone.ask("GET", "/api/streaming/stats")).body
        assert (stats["active_sessions"], stats["providers"]["main"]["total_requests"]) == (1, 2)


async def test_c5_retry_and_fallback_policy_per_provider_and_per_request() -> None:
    """Retry and fallback policy per provider and per request."""
    async with (
        ScriptedUpstream(status(500)) as broken,
        ScriptedUpstream(text("from the other")) as sound,
        serving() as server,
    ):
        policy = {"max_attempts": 3, "initial": 0.01}
        await server.register(broken, "one", models=["pair"], retry=policy)
        await server.register(sound, "two", models=["pair"], priority=2)
        got = await server.ask("POST", "/v1/chat/completions", chat(model="pair"))
        assert got.body["choices"][0]["message"]["content"] == "from the other"
        assert (got.headers["x-weir-attempts"], len(broken.requests)) == ("4", 3), "not as the provider's policy says"

        once = {"retry": {"max_attempts": 1}}
        await server.ask("POST", "/v1/chat/completions", chat(model="pair", weir=once))
        assert len(broken.requests) == 4, "not as the request's policy says"

        alone = await server.ask("POST", "/v1/chat/completions", chat(model="pair", weir={**once, "fallback": False}))
        assert (alone.status, len(sound.requests)) == (502, 2), "another provider was asked against the request's wish"


async def _serves(replica: Weir, provider_id: str) -> None:
    async def does() -> bool:
        return (await call(f"{replica.url}/v1/chat/completions", chat(model=provider_id)))[0] == 200

    await until(does, "the registration arrives")


async def _streamed(url: str, words: str, **fields: Any) -> None:
    body = {"messages": [{"role": "user", "content": words}], "session_id": "shared", "user_id": "ann", **fields}
    async with aiohttp.ClientSession() as session, session.post(url + STREAMING, json=body) as response:
        assert '"type":"finish"' in await response.text()


def _heard(upstream: ScriptedUpstream, number: int) -> list[str]:
    return [message["content"] for message in upstream.requests[number].body["messages"]]
