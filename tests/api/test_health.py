"""Live, ready, and what is told about each provider."""

import asyncio

import pytest

from proxy.errors import StoreAway
from proxy.report import _state
from proxy.state.stats import Figures
from proxy.tally import Tally
from proxy.testing import ScriptedUpstream, cut_after, hang_after, hang_before, refuse, scripted, status, text
from proxy.upstream import Upstream
from tests.server import Server, chat, serving

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


async def health(server: Server, provider_id: str = "main", query: str = "") -> dict[str, object]:
    got = await server.ask("GET", f"/providers/health{query}")
    assert (got.status, got.body["stale"]) == (200, False)
    return dict(got.body["providers"][provider_id])


async def test_live_ready_and_draining(server: Server) -> None:
    assert (await server.ask("GET", "/health/live")).body == {"status": "live"}
    assert (await server.ask("GET", "/health/ready")).body == {"status": "ready"}
    server.weir.draining = True
    ready = await server.ask("GET", "/health/ready")
    assert (ready.status, ready.body) == (503, {"status": "draining"})
    assert (await server.ask("GET", "/health/live")).status == 200
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        assert (await server.ask("POST", CHAT, chat())).status == 200, "a replica that drains still serves"


async def test_without_redis_it_is_ready_and_says_degraded(server: Server) -> None:
    server.weir.store.away = True
    ready = await server.ask("GET", "/health/ready")
    assert (ready.status, ready.body["status"]) == (200, "degraded")
    assert "Redis" in ready.body["reason"]


async def test_without_redis_the_figures_say_that_they_are_stale(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> None:
        raise StoreAway("statistics")

    await server.register(refuse())
    monkeypatch.setattr(server.weir.fleet.stats, "fetch", away)
    got = await server.ask("GET", "/providers/health")
    assert (got.status, got.body["stale"], list(got.body["providers"])) == (200, True, ["main"])


async def test_a_provider_nobody_has_asked_is_unknown(server: Server) -> None:
    await server.register(refuse())
    main = await health(server)
    assert main["state"] == "unknown"
    assert main["last_error"] is None
    assert main["left_out_until"] is None
    assert main["total"] == {
        "requests": 0,
        "successes": 0,
        "cancelled": 0,
        "failures": {},
        "error_rate": 0.0,
        "response_ms": {"average": None, "p50": None, "p95": None, "p99": None},
        "first_token_ms": {"average": None, "p50": None, "p95": None, "p99": None},
        "input_tokens": 0,
        "output_tokens": 0,
        "tokens_per_second": None,
    }


async def test_figures_after_some_requests(server: Server) -> None:
    async with ScriptedUpstream(text("a", usage=(5, 2))) as upstream:
        await server.register(upstream)
        for stream in (True, False, True):
            assert (await server.ask("POST", CHAT, chat(stream=stream))).status == 200
        main = await health(server)
    assert (main["state"], main["active_streams"], main["provider_type"]) == ("healthy", 0, "openai_compatible")
    for window in ("minute", "hour", "total"):
        figures = main[window]
        assert isinstance(figures, dict)
        assert (figures["requests"], figures["successes"], figures["error_rate"]) == (3, 3, 0.0)
        assert (figures["input_tokens"], figures["output_tokens"]) == (15, 6)
        for times in (figures["response_ms"], figures["first_token_ms"]):
            assert 0 < times["p50"] <= times["p95"] <= times["p99"]
            assert times["average"] > 0


async def test_failures_are_counted_by_kind_and_the_last_is_told(server: Server) -> None:
    scripts = [text("a"), status(500, "boom"), cut_after(1), status(400, "your fault")]
    async with ScriptedUpstream(*scripts) as upstream:
        await server.register(upstream)
        for code in (200, 502, 502, 400):
            assert (await server.ask("POST", CHAT, chat())).status == code
        main = await health(server)
    total = main["total"]
    assert isinstance(total, dict)
    assert total["failures"] == {"server": 1, "cut": 1, "rejected": 1}
    assert (total["requests"], total["successes"], total["error_rate"]) == (4, 1, 0.5)
    assert main["state"] == "degraded"
    error = main["last_error"]
    assert isinstance(error, dict)
    assert (error["message"], error["kind"], error["at"] > 1.6e9) == ("your fault", "rejected", True)


def scripted_upstream() -> Upstream:
    adapter = scripted("a", [])
    return Upstream(adapter.config, adapter)


def test_a_quiet_minute_does_not_heal_a_provider() -> None:
    upstream, figures = scripted_upstream(), Figures()
    assert _state(upstream, figures) == "unknown"
    figures.windows["total"] = Tally(requests=1, cancelled=1)
    assert _state(upstream, figures) == "unknown", "nobody waited for it"
    figures.windows["total"] = Tally(requests=2, failures={"auth": 2})
    assert _state(upstream, figures) == "degraded", "it never worked"
    figures.windows["hour"] = Tally(requests=1, successes=1)
    assert _state(upstream, figures) == "healthy", "it has worked since"


async def test_a_provider_that_fails_again_and_again_is_open(server: Server) -> None:
    await server.register(refuse())
    for _ in range(5):
        await server.ask("POST", CHAT, chat())
    main = await health(server)
    assert (main["state"], main["ejections"]) == ("open", 1)
    assert isinstance(main["left_out_until"], float)


async def test_a_running_stream_is_active(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream:
        await server.register(upstream)
        async with server.stream(chat()) as response:
            await response.content.readany()
            assert (await health(server))["active_streams"] == 1


async def test_probes_run_side_by_side_and_each_has_its_limit(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.probe.LIMIT", 1.0)
    async with ScriptedUpstream(hang_before()) as deaf, ScriptedUpstream(text("a")) as good:
        for number in range(8):
            await server.register(deaf, f"deaf{number}")
        await server.register(good, "good")
        await server.register(refuse(), "refuses")
        began = asyncio.get_running_loop().time()
        got = await server.ask("GET", "/providers/health?probe=true")
        assert asyncio.get_running_loop().time() - began < 4, "eight limits of 1 s were waited for one by one"
        probes = {name: shown["probe"] for name, shown in got.body["providers"].items()}
        assert probes["good"]["ok"] is True
        assert probes["deaf3"] == {"ok": False, "kind": "timeout", "error": "no token within 1 s"}
        assert probes["refuses"]["kind"] == "connect"
        assert (await health(server, "good"))["state"] == "unknown", "a probe is no request of a client"
        assert "probe" not in await health(server, "good")
        await deaf.disconnected(8)


async def test_a_bad_query_is_told(server: Server) -> None:
    got = await server.ask("GET", "/providers/health?probe=maybe")
    assert (got.status, got.body["error"]["param"]) == (400, "probe")
    assert "probe" in got.message


async def test_figures_are_all_there_where_nothing_is_registered() -> None:
    async with serving() as server:
        assert (await server.ask("GET", "/providers/health")).body == {"stale": False, "providers": {}}
