"""Redis is away for longer than a durable stream waits."""

import asyncio
import random

import pytest

from proxy.durable.feed import PATIENCE
from proxy.testing import ScriptedUpstream, begun, text
from tests.journeys import skip
from tests.paced_upstream import PacedUpstream
from tests.process import until
from tests.redis_server import RedisServer
from tests.scenarios.returning import ReturningClient, have
from tests.scenarios.survivors import Survivors
from tests.server import chat, serving

pytestmark = pytest.mark.anyio


async def test_a_stream_for_which_redis_is_away_too_long_ends_marked(redis: RedisServer) -> None:
    async with PacedUpstream() as upstream, serving(redis_url=redis.url) as server:
        await server.register(upstream.url)
        client = ReturningClient(server.session, Survivors(), random.Random(0), "away", length=100_000)
        await client.connect(at=server, until=have(6, client))
        (log,) = server.weir.durable._produced
        redis.kill()
        await until(lambda: log.unsure, "nothing was written since Redis died")
        skip(PATIENCE)
        (said,) = upstream.answers["away"]
        await until(lambda: said.cut, "the provider's call goes on, and nobody can ever see what it says")
        redis.start()
        await until(lambda: log.finished.done(), "the end does not come into the log when Redis is back")
        late = client.again()

        async def comes_back() -> str | None:
            await late.connect(at=server)
            return late.ended

        assert await until(comes_back, "it did not end") == "store_unavailable"
        assert late.blocks[: len(client.blocks)] == client.blocks, "what was shown has changed"
        shown = "".join(block.text for block in late.blocks)
        assert said.text.startswith(shown), f"it says {shown!r}, and the provider said {said.text!r}"


async def test_a_redis_that_comes_back_empty_keeps_nobody_waiting(redis: RedisServer) -> None:
    async with PacedUpstream() as upstream, serving(redis_url=redis.url) as here, serving(redis_url=redis.url) as there:
        await here.register(upstream.url)
        client = ReturningClient(here.session, Survivors(), random.Random(0), "lost", length=100_000)
        await client.connect(at=here, until=have(3, client))
        others = [client.again(), client.again()]
        reading = [
            asyncio.create_task(other.connect(at=server)) for other, server in zip(others, (here, there), strict=True)
        ]
        await until(have(6, *others), "they are not fed")
        redis.kill()
        redis.start(empty=True)
        async with asyncio.timeout(10):
            await asyncio.gather(*reading)
        for other in others:
            assert len(other.told) == 1, f"{other.told}"
            assert "stream_gone" in other.told[0]
        (said,) = upstream.answers["lost"]
        await until(lambda: said.cut, "the provider's call goes on")


async def test_a_redis_that_went_backwards_is_told_to_whoever_has_seen_more() -> None:
    """As when a replica that lags behind is promoted: what was acknowledged is gone, what came before is there."""
    more = asyncio.Event()
    script = [*begun("one", "two"), more, *text("three")[2:]]
    with RedisServer(appendonly="no") as redis:
        async with ScriptedUpstream(script) as upstream, serving(redis_url=redis.url) as server:
            await server.register(upstream)
            async with server.stream(chat(weir={"durable": True})) as response:
                await response.content.readuntil(b'"two"')
                redis.command("SAVE")
                more.set()
                seen = (await response.content.read()).decode()
            assert seen.endswith("data: [DONE]\n\n")
            *_, last = [line.removeprefix("id: ") for line in seen.splitlines() if line.startswith("id: ")]
            redis.kill()
            redis.start()
            stream = f"/v1/streams/{response.headers['x-weir-stream-id']}"
            await until(lambda: not server.weir.store.away, "Redis is back")
            got = await server.ask("GET", stream, last_event_id=last)
            assert (got.status, got.body["error"]["code"]) == (409, "log_regressed"), "the loss was hidden"

            async def ended() -> bool:
                return bool((await server.ask("GET", f"{stream}/status")).body.get("state") == "ended")

            await until(ended, "what is left of the stream has no end")
            again = await server.ask("GET", stream, last_event_id=last)
            assert again.status == 409, "once it was taken up again, the loss was hidden"
            whole = (await server.ask("GET", stream)).body.decode()
            assert '"content":"two"' in whole
            assert "three" not in whole
            assert "replica_lost" in whole
