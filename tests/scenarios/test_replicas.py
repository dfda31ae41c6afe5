"""Several replicas share one Redis: what one is told, all know; what all count, any one tells."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.testing import Answer, ScriptedUpstream, begun, chunk, refuse, sse, text
from tests.process import Weir, call, chat, provider, replicas, until, weir
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

REQUESTS = int(os.environ.get("WEIR_TEST_REQUESTS", "3000"))  # the proof was run once with 30000


@pytest.fixture
async def three(tmp_path: Path, redis: RedisServer) -> AsyncIterator[list[Weir]]:
    async with replicas(tmp_path, redis.url, 3) as started:
        yield started


async def figures(replica: Weir, provider_id: str = "main") -> dict[str, Any]:
    _, body = await call(f"{replica.url}/providers/health")
    assert not body["stale"], "the figures are stale although Redis is there"
    found: dict[str, Any] = body["providers"][provider_id]
    return found


async def answered(replica: Weir, model: str = "main") -> tuple[int, Any]:
    return await call(f"{replica.url}/v1/chat/completions", chat(model=model))


async def test_what_one_replica_is_told_all_serve_within_a_second(three: list[Weir]) -> None:
    async with ScriptedUpstream(text("hi")) as upstream:
        assert (await call(f"{three[0].url}/providers", provider(upstream.url)))[0] == 201
        for replica in three:
            await until(partial(_answers, replica, 200), "the registration did not arrive", 1)
        changed, _ = await call(f"{three[1].url}/providers/main", {"models": ["fast"]}, "PATCH")
        assert changed == 200
        await until(lambda: _answers(three[2], 200, "fast"), "the change did not arrive", 1)
        assert (await call(f"{three[2].url}/providers/main", method="DELETE"))[0] == 200
        for replica in three:
            await until(partial(_answers, replica, 404), "the removal did not arrive", 1)


async def test_registrations_survive_a_restart_of_everything(tmp_path: Path, redis: RedisServer) -> None:
    async with ScriptedUpstream(text("hi")) as upstream:
        async with weir(tmp_path, REDIS_URL=redis.url) as first:
            await call(f"{first.url}/providers", provider(upstream.url))
        redis.kill()
        redis.start()
        async with weir(tmp_path, REDIS_URL=redis.url) as second:
            assert (await answered(second))[0] == 200, "the registration did not survive"
    assert upstream.requests[0].headers["authorization"] == "Bearer sk-secret-0123456789", "the key did not survive"


async def test_every_request_counts_once_whichever_replica_served_it(three: list[Weir], redis: RedisServer) -> None:
    async with ScriptedUpstream(text("hi")) as upstream, aiohttp.ClientSession() as session:
        await call(f"{three[0].url}/providers", provider(upstream.url))
        for replica in three:
            await until(partial(_answers, replica, 200), "the registration did not arrive")
        numbers = iter(range(3, REQUESTS))  # three came already

        async def client() -> None:
            for number in numbers:
                url = f"{three[number % 3].url}/v1/chat/completions"
                async with session.post(url, json=chat(stream=number % 2 == 0)) as response:
                    await response.read()
                    assert response.status == 200, await response.text()

        await asyncio.gather(*(client() for _ in range(12)))
        for replica in three:
            await until(partial(_counts, replica, REQUESTS), "the sum did not arrive", 1)
        shown = [await figures(replica) for replica in three]
        assert shown[0] == shown[1] == shown[2], "the replicas disagree"
        assert shown[0]["total"]["output_tokens"] == 2 * REQUESTS
        assert shown[0]["state"] == "healthy"

        three[0].signal(signal.SIGKILL)  # all it counted was written long ago
        await three[0].ended()
        await until(lambda: ":2\r" in redis.command("SCARD", "weir:processes"), "the dead replica was not folded")
        for replica in three[1:]:
            assert (await figures(replica))["total"]["requests"] == REQUESTS, "a dead replica's figures were lost"


async def test_a_circuit_that_opens_here_is_open_there(three: list[Weir]) -> None:
    dead = provider(refuse(), retry={"max_attempts": 1})
    await call(f"{three[0].url}/providers", dead)
    for replica in three:
        await until(partial(_answers, replica, 502), "the registration did not arrive")
    for _ in range(5):
        await answered(three[0])
    for replica in three:
        await until(partial(_state, replica, "open"), "the opening did not arrive", 1)
    mended, _ = await call(f"{three[1].url}/providers/main", {"priority": 2}, "PATCH")
    assert mended == 200
    await until(lambda: _state(three[0], "degraded"), "a changed provider is given another chance everywhere", 1)


async def test_a_stream_of_a_removed_provider_ends_in_peace(three: list[Weir]) -> None:
    gate = asyncio.Event()
    script = [*begun("la "), gate, sse(chunk({"content": "end"})), sse(chunk(finish="stop")), sse("[DONE]")]
    async with ScriptedUpstream(script) as upstream, aiohttp.ClientSession() as session:
        await call(f"{three[0].url}/providers", provider(upstream.url))
        async with session.post(f"{three[0].url}/v1/chat/completions", json=chat(stream=True)) as stream:
            await stream.content.readline()
            await until(lambda: _knows(three[1]), "the registration did not arrive")
            await call(f"{three[1].url}/providers/main", method="DELETE")
            await until(lambda: _knows(three[0], 404), "the removal did not arrive")
            gate.set()
            assert (await stream.text()).endswith("data: [DONE]\n\n"), "a running stream was dropped"


async def test_redis_goes_and_comes_back(three: list[Weir], redis: RedisServer) -> None:
    async with ScriptedUpstream(text("hi")) as upstream:
        await call(f"{three[0].url}/providers", provider(upstream.url))
        for replica in three:
            await until(partial(_answers, replica, 200), "the registration did not arrive")
        redis.kill()
        await until(lambda: _is_degraded(three[1]), "ready does not say degraded")
        for replica in three:
            assert (await answered(replica))[0] == 200, "a known provider must be served without Redis"
        _, health = await call(f"{three[1].url}/providers/health")
        assert health["stale"], "health does not say that its figures are stale"
        refused, body = await call(f"{three[1].url}/providers", provider(upstream.url, "other"))
        assert (refused, body["error"]["code"]) == (503, "store_unavailable")
        redis.start()
        for replica in three:
            await until(partial(_counts, replica, 6), "what was counted without Redis was lost", 2)


async def test_redis_was_away_at_the_start(tmp_path: Path, redis: RedisServer) -> None:
    async with ScriptedUpstream(text("hi")) as upstream:
        async with weir(tmp_path, REDIS_URL=redis.url) as before:
            await call(f"{before.url}/providers", provider(upstream.url))
        redis.kill()
        async with weir(tmp_path, REDIS_URL=redis.url) as late:
            assert (await call(f"{late.url}/health/ready"))[1]["status"] == "degraded"
            status, body = await answered(late)
            assert (status, body["error"]["code"]) == (503, "store_unavailable"), "a 404 is believed"
            redis.start()
            await until(lambda: _answers(late, 200), "what is registered did not come with Redis", 2)


async def test_two_workers_share_a_port(tmp_path: Path, redis: RedisServer) -> None:
    async with (
        ScriptedUpstream([Answer(503)], text("hi")) as upstream,
        weir(tmp_path, None, "--workers", "2", REDIS_URL=redis.url) as served,
    ):
        await until(lambda: served.log.count(": serving ") == 2, "both workers serve")
        await call(f"{served.url}/providers", provider(upstream.url))
        for _ in range(20):
            await until(lambda: _answers(served, 200), "a worker does not know the provider")
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0, served.log
    assert "Traceback" not in served.log


async def test_a_dead_worker_and_a_wrong_file_do_not_take_the_others_down(tmp_path: Path, redis: RedisServer) -> None:
    right = "providers: [{provider_id: file, provider_type: openai, model_name: m}]"
    async with weir(tmp_path, right, "--workers", "2", REDIS_URL=redis.url) as served:
        await until(lambda: served.log.count(": serving ") == 2, "both workers serve")
        path = next(tmp_path.glob("*.yaml"))
        path.write_text("providers: [{provider_id: x}]")
        children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
        workers = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(workers[0], signal.SIGKILL)
        await until(lambda: served.log.count(f"{path.name}:1") >= 2, "nobody is told what is wrong with the file")
        assert (await call(f"{served.url}/health/live"))[0] == 200, "the other worker went down too"
        path.write_text(right)
        await until(lambda: served.log.count(": serving ") == 3, "the worker did not come back")


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_reaches_the_workers(tmp_path: Path, redis: RedisServer, sig: signal.Signals) -> None:
    """As SIGINT alone does, which is a person who waits."""
    patient = {"WEIR_DRAIN": "60", "WEIR_GRACE": "60", "REDIS_URL": redis.url}
    async with weir(tmp_path, None, "--workers", "2", **patient) as served:
        await until(lambda: served.log.count(": serving ") == 2, "both workers serve")
        served.signal(sig)
        if sig == signal.SIGTERM:
            await until(lambda: served.log.count(": leaving: ") == 2, "the workers are told")
            served.signal(sig)
        assert await served.ended() == 0, served.log


async def test_workers_do_not_outlive_who_looks_after_them(tmp_path: Path, redis: RedisServer) -> None:
    """Who starts Weir anew would find its port taken."""
    async with weir(tmp_path, None, "--workers", "2", REDIS_URL=redis.url) as served:
        await until(lambda: served.log.count(": serving ") == 2, "both workers serve")
        children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
        served.process.kill()
        await served.ended()
        await until(lambda: not any(map(_runs, children)), "the workers live on")


async def test_two_workers_without_redis_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="REDIS_URL"):
        async with weir(tmp_path, None, "--workers", "2"):
            pass


async def _answers(replica: Weir, expected: int, model: str = "main") -> bool:
    return (await answered(replica, model))[0] == expected


async def _counts(replica: Weir, requests: int) -> bool:
    _, body = await call(f"{replica.url}/providers/health")
    return not body["stale"] and body["providers"]["main"]["total"]["requests"] == requests


async def _state(replica: Weir, state: str) -> bool:
    return bool((await figures(replica))["state"] == state)


async def _knows(replica: Weir, expected: int = 200) -> bool:
    return (await call(f"{replica.url}/providers/main"))[0] == expected


async def _is_degraded(replica: Weir) -> bool:
    status, body = await call(f"{replica.url}/health/ready")
    return status == 200 and body["status"] == "degraded"


async def test_changes_on_two_replicas_both_last(three: list[Weir]) -> None:
    await call(f"{three[0].url}/providers", provider(refuse()))
    await until(lambda: _knows(three[1]), "the registration did not arrive")
    for number in range(1, 6):
        changes: tuple[dict[str, Any], ...] = (
            {"priority": number},
            {"context_window": 1000 + number},
            {"models": [f"m{number}"]},
        )
        told = zip(three, changes, strict=True)
        answers = await asyncio.gather(*(call(f"{it.url}/providers/main", body, "PATCH") for it, body in told))
        assert [status for status, _ in answers] == [200, 200, 200]
        _, shown = await call(f"{three[0].url}/providers/main", {}, "PATCH")  # which reads what is registered now
        assert (shown["priority"], shown["context_window"], shown["models"]) == (number, 1000 + number, [f"m{number}"])


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
