"""Weir in somebody else's application: all of it there, and nothing of theirs changed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import websockets
from fastapi import FastAPI, HTTPException
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proxy import ConfigError, Mount, Settings, WeirError
from proxy.testing import ScriptedUpstream, text
from tests.documents import Example, examples
from tests.hosting import Host, hosting
from tests.server import LIMIT, chat, provider

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
FILE = "providers: [{provider_id: a, provider_type: openai, model_name: m}, {provider_id: a}]"
HOSTS = [example for example in examples("docs/embedding.md") if "FastAPI" in example.code]


async def register(host: Host, prefix: str, url: str, **headers: str) -> None:
    got = await host.ask("POST", f"{prefix}/providers", provider(url), **headers)
    assert got.status == 201, got.body


@pytest.mark.parametrize("example", HOSTS, ids=lambda example: example.place)
async def test_the_examples_of_the_document_serve(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("providers.yaml").write_text("providers: []")
    async with ScriptedUpstream(text("hello")) as upstream:
        names: dict[str, Any] = {"__name__": "example"}
        exec(compile(example.code.replace("http://127.0.0.1:9000/v1", upstream.url), example.place, "exec"), names)
        async with hosting(names["app"]) as host:
            if "api_keys" in example.code:
                await register(host, "/llm", upstream.url, authorization="Bearer a-key-for-providers")
                assert (await host.ask("GET", "/")).body == {"providers": ["main"]}
            direct = openai.DefaultAsyncHttpxClient(trust_env=False)
            async with openai.AsyncOpenAI(
                base_url=f"{host.url}/llm/v1", api_key="a-key-for-chat", max_retries=0, http_client=direct
            ) as client:
                got = await client.chat.completions.create(model="main", messages=[{"role": "user", "content": "hi"}])
    assert got.choices[0].message.content == "hello"


async def test_all_of_it_is_there_below_the_prefix() -> None:
    weir = Mount()
    app = FastAPI()
    app.include_router(weir.router, prefix="/llm")
    async with ScriptedUpstream(text("hel", "lo")) as upstream, hosting(app) as host:
        await register(host, "/llm", upstream.url)
        streamed = await host.ask("POST", f"/llm{CHAT}", chat(stream=True))
        assert streamed.body.endswith(b"data: [DONE]\n\n")
        assert streamed.headers["x-weir-provider"] == "main"
        native = await host.ask("POST", "/llm/api/streaming/chat", chat())
        assert b'{"type":"text-delta","content":"hel"' in native.body
        assert (await host.ask("GET", "/llm/providers/health")).body["providers"]["main"]["total"]["requests"] == 2
        for path in ("/llm/v1/models", "/llm/health/ready", "/llm/api/streaming/stats", "/llm/providers"):
            got = await host.ask("GET", path)
            assert got.status == 200, f"{path}: {got.body}"
            assert got.headers["x-request-id"], f"{path} has no id"
        assert (await host.ask("GET", "/v1/models")).status == 404, "Weir has routes outside its prefix"
        address = host.url.replace("http", "ws") + "/llm/api/streaming/ws/u1"
        async with websockets.connect(address, proxy=None, open_timeout=LIMIT) as socket:
            assert '"message_type":"connected"' in str(await socket.recv())
            assert weir.weir.sockets.get_statistics()["connections"] == 1


async def test_what_is_the_hosts_stays_as_it_was() -> None:
    """Its routes, its lifespan, its handlers, its middleware, its schema."""
    said: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        said.append("up")
        yield {"name": "the host's"}
        said.append("down")

    app = FastAPI(lifespan=lifespan)

    @app.exception_handler(StarletteHTTPException)
    async def sorry(request: Request, error: StarletteHTTPException) -> Response:
        return JSONResponse({"sorry": error.detail}, error.status_code)

    @app.get("/providers")
    async def mine(request: Request) -> Any:
        return {"providers": request.state.name}

    @app.get("/broken")
    async def broken() -> Any:
        raise HTTPException(418, "I am a teapot")

    app.include_router(Mount().router, prefix="/llm")
    async with hosting(app) as host:
        assert said == ["up"]
        assert (await host.ask("GET", "/providers")).body == {"providers": "the host's"}
        assert (await host.ask("GET", "/broken")).body == {"sorry": "I am a teapot"}
        assert (await host.ask("GET", "/nowhere")).body == {"sorry": "Not Found"}
        assert (await host.ask("GET", "/number?n=x")).body == {"sorry": "Not Found"}
        assert "x-request-id" not in (await host.ask("GET", "/providers")).headers
        wrong = await host.ask("POST", f"/llm{CHAT}", chat(model="nobody"))
        assert (wrong.status, wrong.body["error"]["code"]) == (404, "model_not_found")
        assert wrong.message.startswith("model 'nobody' is not served here")
        assert wrong.headers["x-request-id"]
        assert "/llm/v1/chat/completions" in (await host.ask("GET", "/openapi.json")).body["paths"]
    assert said == ["up", "down"]


async def test_two_in_one_application_do_not_mix() -> None:
    one = Mount(Settings.from_environment({"WEIR_API_KEYS": "key-one", "WEIR_ADMIN_KEY": "admin-one"}))
    two = Mount(Settings.from_environment({"WEIR_API_KEYS": "key-two", "WEIR_ADMIN_KEY": "admin-two"}))
    app = FastAPI()
    app.include_router(one.router, prefix="/one")
    app.include_router(two.router, prefix="/two")
    async with (
        ScriptedUpstream(text("from one")) as first,
        ScriptedUpstream(text("from two")) as second,
        hosting(app) as host,
    ):
        await register(host, "/one", first.url, authorization="Bearer admin-one")
        await register(host, "/two", second.url, authorization="Bearer admin-two")
        for name in ("one", "two"):
            got = await host.ask("POST", f"/{name}{CHAT}", chat(), authorization=f"Bearer key-{name}")
            assert got.body["choices"][0]["message"]["content"] == f"from {name}"
        for path, key in ((CHAT, "key-two"), ("/providers", "admin-two")):
            got = await host.ask("POST", f"/one{path}", chat(), authorization=f"Bearer {key}")
            assert got.status == 401, f"a key of /two opens {path} of /one"
        assert one.weir is not two.weir
        shown = await host.ask("GET", "/one/providers/health", authorization="Bearer admin-one")
        assert shown.body["providers"]["main"]["total"]["requests"] == 1, "the figures are mixed"


async def test_a_lifespan_may_enter_it_first() -> None:
    weir = Mount()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with weir.lifespan(app):
            assert weir.weir.list_providers() == []
            yield
            assert weir.weir.list_providers() == [], "it ended before the application let go of it"

    app = FastAPI(lifespan=lifespan)
    app.include_router(weir.router)
    async with hosting(app) as host:
        assert (await host.ask("GET", "/health/ready")).body == {"status": "ready"}


async def test_it_can_run_again_and_two_runs_share_nothing() -> None:
    weir = Mount()
    app = FastAPI()
    app.include_router(weir.router)
    seen = []
    for _ in range(2):
        async with app.router.lifespan_context(app):
            seen.append(weir.weir)
            await weir.weir.register_openai_provider("a", "m")
            assert weir.weir.list_providers() == ["a"]
    assert seen[0] is not seen[1]


async def test_who_forgets_to_start_it_is_told() -> None:
    weir = Mount()
    app = FastAPI()
    app.include_router(weir.router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        got = await client.get("/v1/models")
    assert (got.status_code, got.json()["error"]["code"]) == (503, "not_running")
    with pytest.raises(WeirError, match="included in the application"):
        weir.weir  # noqa: B018


async def test_a_wrong_file_stops_the_hosts_start(tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text(FILE)
    app = FastAPI()
    app.include_router(Mount(path=path).router)
    with pytest.raises(ConfigError, match=r"providers\[1\]"):
        async with app.router.lifespan_context(app):
            pass
