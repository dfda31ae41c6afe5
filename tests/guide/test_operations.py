"""Errors, watching and embedding, row by row."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI

from proxy import Error, Mount, Settings, Timeouts, Weir
from proxy.testing import ScriptedUpstream, cut_after, play, status, text
from tests.guide.asking import HI, heard, pieces
from tests.hosting import hosting
from tests.process import ROOT, call, chat, provider, until, weir
from tests.server import serving

pytestmark = pytest.mark.anyio

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


async def test_g24_retry_with_exponential_back_off_then_an_error_event(caplog: pytest.LogCaptureFixture) -> None:
    """Retry with exponential back-off, then an error event, never an exception into the client's lap: "robust
    streaming chat", `max_retries=3`."""
    patience = {"max_attempts": 4, "initial": 0.05, "maximum": 8}  # the first attempt, and three retries
    async with ScriptedUpstream(status(500)) as broken, Weir.open() as weir:
        await weir.register_openai_provider("main", "m", base_url=broken.url, retry=patience)
        with caplog.at_level(logging.DEBUG, "proxy"):
            (event,) = await play(weir.stream_chat(HI))
        assert isinstance(event, Error)
        assert "main" in event.message
        assert len(broken.requests) == 4
    waits = [float(wait) for wait in re.findall(r"waits ([\d.]+) s before it asks again", caplog.text)]
    bounds = [0.05, 0.1, 0.2]  # doubled each time; how much of it is waited is left to chance
    assert len(waits) == 3
    assert all(wait <= bound + 0.005 for wait, bound in zip(waits, bounds, strict=True)), waits

    async with ScriptedUpstream(status(500), status(503), text("at last")) as shaky, serving() as server:
        await server.register(shaky, retry=patience)
        assert pieces(await heard(server)) == ["at last"], "what was retried shows"


async def test_g25_fall_back_to_another_provider() -> None:
    """Fall back to another provider: "error handling and degradation"."""
    async with (
        ScriptedUpstream(cut_after(0)) as broken,
        ScriptedUpstream(text("from the other")) as sound,
        serving() as server,
    ):
        await server.register(broken, "first", models=["fast"], priority=1)
        await server.register(sound, "second", models=["fast"], priority=2)
        events = await heard(server, provider_id=None, model="fast")
        assert pieces(events) == ["from the other"]
        assert {event["source"] for event in events} == {"second"}, "the first one's failure shows"
        got = await server.ask("POST", "/v1/chat/completions", chat(model="fast"))
        assert got.headers["x-weir-provider"] == "second"


async def test_g26_stats() -> None:
    """`health_check_all()`, active sessions, WebSocket statistics; total requests, error rate, average response
    time."""
    async with ScriptedUpstream(text("hi"), cut_after(1)) as upstream, Weir.open() as weir, serving() as server:
        await weir.register_openai_provider("main", "m", base_url=upstream.url, retry={"max_attempts": 1})
        for _ in range(2):
            await play(weir.create_session(session_id="s1").stream_chat(HI))
        total = (await weir.health_check_all())["providers"]["main"]["total"]
        assert (total["requests"], total["error_rate"]) == (2, 0.5)
        assert total["response_ms"]["average"] > 0
        told = await weir.get_statistics()
        assert (told["active_sessions"], told["websocket"]["connections"]) == (1, 0)
        assert told["providers"]["main"]["total_requests"] == 2

        over_http = (await server.ask("GET", "/api/streaming/stats")).body
        assert over_http.keys() == told.keys()
        assert "providers" in (await server.ask("GET", "/providers/health")).body


OWN_MONITOR = """
from proxy import Monitor


class Ledger(Monitor):
    began_ones, lines = 0, []

    def began(self, journey):
        Ledger.began_ones += 1

    def ended(self, journey):
        Ledger.lines.append((journey.provider, journey.end, journey.attempts, journey.seconds > 0))


def register(registry):
    registry.add_monitor(Ledger())
"""


async def test_g27_a_users_own_monitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts and times every stream without touching the proxy's code."""
    (tmp_path / "ledger_plugin.py").write_text(OWN_MONITOR)
    monkeypatch.syspath_prepend(tmp_path)
    (file := tmp_path / "providers.yaml").write_text("plugins: [ledger_plugin]")
    async with ScriptedUpstream(text("hi"), cut_after(1)) as upstream, serving(file) as server:
        await server.register(upstream)
        await heard(server)
        await server.ask("POST", "/v1/chat/completions", chat())
    ledger = sys.modules["ledger_plugin"].Ledger
    assert ledger.began_ones == 2
    assert ledger.lines == [("main", "finish", 1, True), ("main", "error:cut", 1, True)]


async def test_g28_the_routes_mount_into_someone_elses_app() -> None:
    """The routes mount into someone else's FastAPI app: `app.include_router(streaming_router)`, with start-up and
    shut-down."""
    weir = Mount(Settings())
    streaming_router = weir.router
    app = FastAPI()

    @app.get("/mine")
    async def mine() -> dict[str, bool]:
        return {"still": True}

    app.include_router(streaming_router)
    async with ScriptedUpstream(text("hello")) as upstream, hosting(app) as host:
        registered = await host.ask("POST", "/api/streaming/providers/register", provider(upstream.url))
        assert registered.status == 201
        got = await host.ask("POST", "/api/streaming/chat", {"messages": HI, "provider_id": "main"})
        assert b'"content":"hello"' in got.body
        assert (await host.ask("GET", "/mine")).body == {"still": True}
        running = weir.weir
    assert running.list_providers() == [], "it was not shut down with the application"


async def test_g29_debugging(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Python `logging`, one logger per module, DEBUG tells what happened to one request."""
    with caplog.at_level(logging.DEBUG, "proxy"):
        async with ScriptedUpstream(status(500), text("hi")) as upstream, serving() as server:
            await server.register(upstream, retry={"max_attempts": 2, "initial": 0})
            await server.ask("POST", "/v1/chat/completions", chat(), x_request_id="find-me")
    told = [record.getMessage() for record in caplog.records if "find-me" in record.getMessage()]
    steps = ("asks main, attempt 1", "attempt 2", "main answers", "end=finish")
    for step in steps:
        assert any(step in line for line in told), f"{step!r} is not in {told}"
    ours = {record.name for record in caplog.records if record.name.startswith("proxy")}
    assert ours <= set(sys.modules), "a logger is not named after its module"

    caplog.clear()
    with caplog.at_level(logging.INFO, "proxy"):
        async with ScriptedUpstream(text("hi")) as upstream, serving() as server:
            await server.register(upstream)
            for headers in ({"x_request_id": "plain"}, {"x_request_id": "traced", "x_weir_debug": "please"}):
                await server.ask("POST", "/v1/chat/completions", chat(), **headers)
    assert "request traced: asks main" in caplog.text, "an admin cannot trace one request"
    assert "request plain: asks main" not in caplog.text

    async with ScriptedUpstream(text("hi")) as upstream, weir(tmp_path, WEIR_LOG_LEVEL="DEBUG") as process:
        await call(f"{process.url}/providers", provider(upstream.url))
        await call(f"{process.url}/v1/chat/completions", chat())
        await until(lambda: "DEBUG   proxy.journey: request " in process.log, "a process tells at DEBUG, too")


async def test_g30_troubleshooting_page() -> None:
    """WebSocket fails, registration fails, stream breaks off, slow: what to check."""
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    for title in ("The WebSocket fails", "Registration fails", "A stream breaks off", "It is slow"):
        (section,) = [section for section in sections if section.startswith(title)]
        assert section.count("\n| ") > 5, f"{title}: little to check"

    source = "".join(path.read_text() for path in (ROOT / "proxy").rglob("*.py"))
    for code in re.findall(r"\| \d{3} `(\w+)`", PAGE):
        assert f'"{code}"' in source or code == "not_found", f"there is no error {code}"
    for words in re.findall(r"^\| `(?:error|abort)`: \"(.*?)\"", PAGE, re.MULTILINE):
        assert words in source, f"nobody says {words!r}"
    for name in re.findall(r"\b(WEIR_[A-Z_]+|REDIS_URL)\b", PAGE):
        assert name.removeprefix("WEIR_").lower() in Settings.model_fields, f"there is no setting {name}"
    for name in re.findall(r"`timeouts\.(\w+)`", PAGE):
        assert name in Timeouts.model_fields, f"there is no limit {name}"
    for page in re.findall(r"\]\((\w+\.md)\)", PAGE):
        assert (ROOT / "docs" / page).exists(), f"there is no page {page}"
    await _check_commands()
    await _check_routes()


async def _check_commands() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"(?:`|^)make (\w+)", PAGE, re.MULTILINE):
        assert target in targets, f"there is no make {target}"
    help = subprocess.run([sys.executable, "-m", "proxy", "--help"], cwd=ROOT, capture_output=True, text=True)
    for command in re.findall(r"python -m proxy (\w+)", PAGE):
        assert command in help.stdout, f"there is no python -m proxy {command}"


async def _check_routes() -> None:
    routes = re.findall(r"(?:`(?:(GET|POST|DELETE|PATCH) )?|localhost:8000)(/[\w/{}?=]+)", PAGE)
    assert len(routes) > 5
    async with serving() as server:
        for method, path in set(routes):
            plain = path.replace("{", "").replace("}", "")
            got = await server.ask(method or "GET", plain, {} if method == "POST" else None)
            told = json.dumps(got.body) if isinstance(got.body, dict) else ""
            assert "there is no route" not in told, f"{method} {path}: there is no such route"
            assert got.status != 405, f"{method} {path}: {told}"
