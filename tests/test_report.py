"""What Weir tells about itself, the same to a program as over HTTP."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy import Weir
from proxy.errors import StoreAway
from proxy.report import health, statistics
from proxy.testing import ScriptedUpstream, hang_after, play, status, text

pytestmark = pytest.mark.anyio

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def weir() -> AsyncIterator[Weir]:
    """One provider answers, the other does not."""
    async with ScriptedUpstream(text("hi")) as good, ScriptedUpstream(status(500)) as bad, Weir.open() as opened:
        for name, upstream in (("good", good), ("bad", bad)):
            await opened.register_openai_provider(name, "m", base_url=upstream.url, retry={"max_attempts": 1})
        yield opened


async def test_health_tells_state_and_figures_of_each(weir: Weir) -> None:
    for name in ("good", "bad"):
        await play(weir.stream_chat(HI, provider_id=name))
    told = await health(weir)
    assert told["stale"] is False
    good, bad = told["providers"]["good"], told["providers"]["bad"]
    assert (good["state"], good["total"]["successes"], good["last_error"]) == ("healthy", 1, None)
    assert (bad["state"], bad["total"]["failures"], bad["last_error"]["kind"]) == ("degraded", {"server": 1}, "server")


async def test_nobody_knows_before_somebody_has_asked_unless_they_are_probed(weir: Weir) -> None:
    told = (await health(weir, probe=True))["providers"]
    assert {name: shown["state"] for name, shown in told.items()} == {"good": "unknown", "bad": "unknown"}
    assert (told["good"]["probe"]["ok"], told["bad"]["probe"]["ok"]) == (True, False)


async def test_a_provider_that_is_left_out_is_open(weir: Weir) -> None:
    for _ in range(5):
        await play(weir.stream_chat(HI, provider_id="bad"))
    told = (await health(weir))["providers"]["bad"]
    assert told["state"] == "open"
    assert told["left_out_until"] > 0


async def test_statistics_count_streams_modes_and_sessions(weir: Weir) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream:
        await weir.register_openai_provider("slow", "m", base_url=upstream.url)
        await play(weir.create_session().stream_chat(HI, provider_id="good", generator_mode="buffered"))
        async with weir.streaming_context(provider_id="slow") as generator:
            reading = asyncio.create_task(play(generator.generate(HI)))
            await upstream.until(lambda it: bool(it.requests))
            told = await statistics(weir)
        await reading
    assert (told["active_streams"], told["active_sessions"], told["stale"]) == (1, 1, False)
    assert told["modes"]["buffered"]["total_requests"] == 1
    assert told["modes"]["standard"]["active_streams"] == 1
    assert told["providers"]["good"]["total_requests"] == 1
    assert told["providers"]["bad"]["error_rate"] == 0
    assert told["websocket"] == {"connections": 0, "messages_in": 0, "messages_out": 0}


async def test_without_redis_they_are_what_was_known_last(weir: Weir, monkeypatch: pytest.MonkeyPatch) -> None:
    await play(weir.stream_chat(HI, provider_id="good"))
    await health(weir)

    async def away(*_: object) -> None:
        raise StoreAway("statistics")

    monkeypatch.setattr(weir.fleet.stats, "fetch", away)
    assert (await health(weir))["stale"]
    told = await statistics(weir)
    assert (told["stale"], told["active_sessions"]) == (True, None)
