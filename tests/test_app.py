"""An application has a proxy of its own, for as long as its lifespan runs."""

from pathlib import Path
from typing import Any

import pytest

from proxy.app import create_app
from proxy.errors import ConfigError
from proxy.settings import Settings
from proxy.testing import ScriptedUpstream, text
from tests.server import chat, provider, serving

pytestmark = pytest.mark.anyio

KEYS: dict[str, Any] = {"api_keys": "client-key-1", "admin_key": "admin-key-1"}
FILE = "providers: [{provider_id: one, provider_type: openai, model_name: m, api_key: k}]"


async def test_two_applications_in_one_process_are_strangers() -> None:
    async with serving() as first, serving(admin_key="admin-key-1", api_keys="k1") as second:
        await first.register("http://127.0.0.1:1/v1")
        assert (await first.ask("GET", "/providers")).status == 200
        assert (await second.ask("GET", "/providers")).status == 401
        assert list(second.weir.router) == []


async def test_it_can_run_again() -> None:
    app = create_app(Settings())
    for _ in range(2):
        async with app.router.lifespan_context(app):
            assert app.state.weir.draining is False


async def test_settings_and_file_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text(FILE)
    monkeypatch.setenv("WEIR_CONFIG", str(path))
    monkeypatch.setenv("WEIR_KEEP_ALIVE", "7")
    app = create_app()
    async with app.router.lifespan_context(app):
        assert [upstream.id for upstream in app.state.weir.router] == ["one"]
        assert app.state.weir.settings.keep_alive == 7


async def test_a_wrong_environment_or_file_stops_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text(FILE.replace("openai,", "nonsense,"))
    app = create_app(Settings(), path)
    with pytest.raises(ConfigError, match="nonsense"):
        async with app.router.lifespan_context(app):
            pass
    monkeypatch.setenv("WEIR_KEEP_ALIVE", "soon")
    with pytest.raises(ConfigError, match="WEIR_KEEP_ALIVE"):
        create_app()


PAGE = "https://chat.example"


async def test_a_page_of_a_named_origin_may_ask_and_read_the_answer() -> None:
    """A browser asks first whether it may: as OpenAI's SDK for Node does with `dangerouslyAllowBrowser`."""
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "authorization,content-type"}
    async with ScriptedUpstream(text("hi")) as upstream, serving(origins=PAGE, **KEYS) as server:
        await server.ask("POST", "/providers", provider(upstream.url), authorization="Bearer admin-key-1")
        may = await server.ask("OPTIONS", "/v1/chat/completions", origin=PAGE, **asked)
        assert (may.status, may.headers["access-control-allow-origin"]) == (200, PAGE)
        assert may.headers["access-control-allow-headers"] == "authorization,content-type"
        key = {"authorization": "Bearer client-key-1"}
        got = await server.ask("POST", "/v1/chat/completions", chat(), origin=PAGE, **key)
        assert (got.status, got.headers["access-control-allow-origin"]) == (200, PAGE)
        refused = await server.ask("POST", "/v1/chat/completions", chat(), origin=PAGE)
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, PAGE), "a page cannot read why"


async def test_a_page_can_read_that_weir_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.api.health.statistics", lambda weir: 1 / 0)
    async with serving(origins=PAGE, **KEYS) as server:
        key = {"authorization": "Bearer admin-key-1"}
        got = await server.ask("GET", "/api/streaming/stats", origin=PAGE, **key)
        assert (got.status, got.headers.get("access-control-allow-origin")) == (500, PAGE)


async def test_a_page_may_ask_a_weir_in_its_readers_network() -> None:
    """Chrome 104 to 141 send this with the question, and take a refusal for one."""
    asked = {"access_control_request_method": "POST", "access_control_request_private_network": "true"}
    async with serving(origins=PAGE, **KEYS) as server:
        assert (await server.ask("OPTIONS", "/v1/chat/completions", origin=PAGE, **asked)).status == 200


@pytest.mark.parametrize("origins", ["", PAGE])
async def test_other_pages_may_not(origins: str) -> None:
    async with serving(origins=origins, **KEYS) as server:
        asked = {"origin": "https://evil.example", "access_control_request_method": "POST"}
        for method in ("OPTIONS", "POST"):
            got = await server.ask(method, "/v1/chat/completions", **asked)
            assert got.status >= 400
            assert "access-control-allow-origin" not in got.headers


def test_every_route_is_in_the_schema() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    assert sorted(paths) == [
        "/api/chat",
        "/api/chat/{chat_id}/stream",
        "/api/streaming/chat",
        "/api/streaming/providers/register",
        "/api/streaming/sessions",
        "/api/streaming/sessions/{session_id}",
        "/api/streaming/sessions/{session_id}/export",
        "/api/streaming/stats",
        "/api/streaming/streams/{stream_id}/{action}",
        "/api/streaming/ws/{user_id}",
        "/health/live",
        "/health/ready",
        "/providers",
        "/providers/health",
        "/providers/register",
        "/providers/{provider_id}",
        "/v1/chat/completions",
        "/v1/models",
        "/v1/models/{name}",
        "/v1/streams/{stream_id}",
        "/v1/streams/{stream_id}/status",
    ]
