"""The routes that tokens take answer as FastAPI would let them, and what an application is wrapped in sees them too."""

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.api.envelope import Envelope
from proxy.api.express import ROUTES, Express
from proxy.api.mount import Mount
from proxy.app import create_app
from proxy.settings import Settings
from proxy.testing import ScriptedUpstream, refuse, text
from tests.hosting import hosting
from tests.server import chat, provider

pytestmark = pytest.mark.anyio

KEYS: dict[str, Any] = {"api_keys": "client-key-1", "admin_key": "admin-key-1"}
UI = {"messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}], "provider_id": "main"}
BODIES: dict[str, Any] = {
    "/v1/chat/completions": chat(stream=True),
    "/api/streaming/chat": chat(),
    "/api/chat": UI,
}
VARY = ("date", "x-weir-stream-id")


def mounted() -> FastAPI:
    """The same routes, dispatched by FastAPI."""
    app = FastAPI()
    app.include_router(Mount(Settings(**KEYS)).router)
    app.add_middleware(Envelope)
    return app


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("case", "status"), [("right", 200), ("keyless", 401), ("broken", 400), ("unknown", 404), ("away", 502)]
)
async def test_they_answer_as_they_do_where_fastapi_dispatches(path: str, case: str, status: int) -> None:
    body: dict[str, Any] = BODIES[path]
    if case == "broken":
        body = {**body, "messages": 7}
    elif case == "unknown":
        body = {**body, "provider_id" if "model" not in body else "model": "nobody"}
    key = {} if case == "keyless" else {"authorization": "Bearer client-key-1"}
    seen = []
    async with ScriptedUpstream(text("hel", "lo"), text("hel", "lo")) as upstream:
        url = refuse() if case == "away" else upstream.url
        for app in (create_app(Settings(**KEYS)), mounted()):
            async with hosting(app) as host:
                await host.ask("POST", "/providers", provider(url), authorization="Bearer admin-key-1")
                got = await host.ask("POST", path, body, x_request_id="mine", **key)
                headers = {name: value for name, value in got.headers.items() if name not in VARY}
                seen.append((got.status, headers, got.body))
    express, dispatched = seen
    assert express[0] == status, express
    assert express == dispatched, "the short way and FastAPI's differ"


@pytest.mark.parametrize("path", ROUTES)
async def test_other_methods_are_fastapis(path: str) -> None:
    async with hosting(create_app(Settings())) as host:
        got = await host.ask("GET", path)
        assert (got.status, got.headers["allow"]) == (405, "POST")


async def test_what_an_application_is_wrapped_in_sees_them_too() -> None:
    passed: list[str] = []

    class Doorman:
        def __init__(self, app: ASGIApp):
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                passed.append(scope["path"])
            await self._app(scope, receive, send)

    app = create_app(Settings())
    app.add_middleware(Doorman)
    async with hosting(app) as host:
        for path in ROUTES:
            await host.ask("POST", path, {})
    assert passed == [*ROUTES]


async def test_a_weir_that_does_not_run_says_so() -> None:
    app = FastAPI()
    app.add_middleware(Express, mount=Mount(Settings()))
    async with hosting(app) as host:
        got = await host.ask("POST", "/v1/chat/completions", chat())
        assert (got.status, got.body["error"]["code"]) == (503, "not_running")
        assert (await host.ask("POST", "/elsewhere", {})).status == 404
