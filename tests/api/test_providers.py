"""Providers over REST: registered, listed, changed and removed, and what is never told about them."""

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.testing import ScriptedUpstream, begun, hang_before, refuse, status, text
from tests.server import KEY, Server, chat, provider, serving

pytestmark = pytest.mark.anyio

GUIDE = {"provider_id": "openai_gpt35", "provider_type": "openai", "model_name": "gpt-3.5-turbo", "api_key": KEY}
PATHS = ["/providers", "/providers/register", "/api/streaming/providers/register"]
FILE = """
providers:
  - {provider_id: fixed, provider_type: openai, model_name: m, api_key: sk-file-0123456789}
"""


@pytest.mark.parametrize("path", PATHS)
async def test_the_guides_body_registers(path: str, server: Server) -> None:
    got = await server.ask("POST", path, GUIDE)
    assert got.status == 201
    assert got.body["provider_id"] == "openai_gpt35"
    assert (got.body["source"], got.body["api_key_set"], got.body["priority"]) == ("rest", True, 1)
    assert (await server.ask("GET", "/providers")).body == {"providers": [got.body]}
    assert (await server.ask("GET", "/providers/openai_gpt35")).body == got.body


async def test_what_is_registered_serves_at_once_until_it_is_deleted(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream, headers={"x-org": "o"}, models=["fast"])
        assert (await server.ask("POST", "/v1/chat/completions", chat(model="fast"))).status == 200
        assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"
        gone = await server.ask("DELETE", "/providers/main")
        assert (gone.status, gone.body) == (200, {"provider_id": "main", "deleted": True})
        assert (await server.ask("POST", "/v1/chat/completions", chat(model="fast"))).status == 404
        for method in ("DELETE", "GET", "PATCH"):
            again = await server.ask(method, "/providers/main", {})
            assert (again.status, again.body["error"]["code"]) == (404, "provider_not_found")


async def test_registering_again_replaces_all_of_it(server: Server) -> None:
    await server.register(refuse(), models=["fast"], headers={"x-a": "1"}, priority=7)
    got = await server.register(refuse())
    assert (got.status, got.body["models"], got.body["headers"], got.body["priority"]) == (201, [], {}, 1)
    assert len((await server.ask("GET", "/providers")).body["providers"]) == 1


async def test_a_patch_merges(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream, models=["fast"], headers={"x-a": "one", "x-b": "two"}, params={"p": {"q": 1}})
        changes = {"retry": {"initial": 1}, "headers": {"x-a": None, "x-c": "three"}, "params": {"p": {"r": 2}}}
        got = await server.ask("PATCH", "/providers/main", {**changes, "priority": 3, "verify": False})
        assert got.status == 200
        assert got.body["retry"] == {"max_attempts": 1, "initial": 1.0, "maximum": 8.0}
        assert got.body["headers"] == {"x-b": "[redacted]", "x-c": "[redacted]"}
        assert got.body["params"] == {"p": {"q": 1, "r": 2}}
        assert (got.body["models"], got.body["priority"], got.body["api_key_set"]) == (["fast"], 3, True)
        assert (await server.ask("POST", "/v1/chat/completions", chat())).status == 200
        sent = upstream.requests[0].headers
        assert (sent.get("x-a"), sent["x-b"], sent["x-c"]) == (None, "two", "three")
        assert sent["authorization"] == f"Bearer {KEY}", "a key that nobody can read back must survive a change"


async def test_null_puts_a_field_back_to_its_default(server: Server) -> None:
    before = await server.register(refuse(), models=["fast"], priority=3, timeouts={"total": 5})
    changes = {"models": None, "priority": None, "timeouts": None, "api_key": None, "retry": None}
    got = await server.ask("PATCH", "/providers/main", changes)
    assert (got.status, got.body["models"], got.body["priority"]) == (200, [], 1)
    assert (got.body["api_key_set"], got.body["timeouts"]["total"]) == (False, 900)
    assert got.body["base_url"] == before.body["base_url"]
    required = await server.ask("PATCH", "/providers/main", {"model_name": None})
    assert (required.status, required.body["error"]["param"]) == (400, "model_name")
    assert (await server.ask("GET", "/providers/main")).body == got.body, "a refused change changed something"
    moved = await server.ask("PATCH", "/providers/main", {"provider_id": "other"})
    assert (moved.status, moved.body["error"]["param"]) == (400, "provider_id")


async def test_what_stands_in_the_file_is_read_only(tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text(FILE)
    async with serving(path) as server:
        shown = (await server.ask("GET", "/providers/fixed")).body
        assert shown["source"] == "file"
        for method, where, body in [
            ("POST", "/providers", provider(refuse(), "fixed")),
            ("PATCH", "/providers/fixed", {"priority": 2}),
            ("PATCH", "/providers/fixed", {"priority": -2}),
            ("DELETE", "/providers/fixed", None),
        ]:
            got = await server.ask(method, where, body)
            assert (got.status, got.body["error"]["code"]) == (409, "provider_read_only")
            assert "providers.yaml" in got.message
        assert (await server.ask("GET", "/providers/fixed")).body == shown


async def test_a_key_is_never_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text(FILE)
    token, value, nested = "tok-9876543210", "val-5566778899", "nst-1122334455"
    said: list[str] = []
    with caplog.at_level(logging.DEBUG):
        async with serving(path) as server, ScriptedUpstream(status(401, f"bad key {KEY} {value}")) as it:

            async def ask(method: str, where: str, body: Any = None) -> None:
                got = await server.ask(method, where, body)
                said.append(f"{got.headers} {got.body}")

            params = {"session_token": token, "x": {"api_key": nested}}
            secrets: dict[str, Any] = {"headers": {"x-secret": value}, "params": params}
            await ask("POST", "/providers", provider(it.url, **secrets, verify=True))
            await ask("PATCH", "/providers/main", {"priority": 2, "verify": True})
            await ask("POST", "/v1/chat/completions", chat())
            for where in ("/providers", "/providers/main", "/providers/health?probe=true", "/providers/fixed"):
                await ask("GET", where)
            await ask("POST", "/providers", {**provider(it.url), "api_key": {"oops": KEY}})
            await ask("POST", "/providers", {**provider(it.url), "api_key": KEY + "\n"})
            await ask("POST", "/providers", {**provider(it.url), "headers": {"x-a": value + "\n"}})
            await ask("POST", "/providers", {**provider(it.url), "base_url": f"http://u:{token}@host/v1"})
            await ask("POST", "/providers", {**provider(it.url), "unknown": KEY})
            await ask("POST", "/providers", json.dumps(provider(it.url)).encode() + b"}")
            await ask("DELETE", "/providers/main")
    everything = "\n".join([*said, caplog.text])
    assert "401" in everything
    for secret in (KEY, token, value, nested, "sk-file-0123456789"):
        for part in (secret, secret[-8:], secret[3:11]):
            assert part not in everything, f"{part} was told"


async def test_verifying_is_a_real_call(server: Server) -> None:
    async with ScriptedUpstream(text("a"), status(401, f"no such key {KEY}")) as upstream:
        got = await server.register(upstream, verify=True)
        assert (got.status, got.body["verified"]["ok"], len(upstream.requests)) == (201, True, 1)
        assert got.body["verified"]["milliseconds"] >= 0
        again = await server.register(upstream, verify=True)
        assert again.body["verified"] == {"ok": False, "kind": "auth", "error": "no such key [redacted]"}
        assert again.status == 201, "it is registered; what the call said is reported"
        assert "verified" not in (await server.register(upstream)).body
        assert len(upstream.requests) == 2


BAD: dict[str, tuple[dict[str, Any], str | None]] = {
    "no id": ({"provider_id": None}, "provider_id"),
    "an id with a slash": ({"provider_id": "a/b"}, "provider_id"),
    "an id with a space": ({"provider_id": "a b"}, "provider_id"),
    "an id of a route": ({"provider_id": "health"}, "provider_id"),
    "an id in another script": ({"provider_id": "漢"}, "provider_id"),
    "an id of 65 characters": ({"provider_id": "a" * 65}, "provider_id"),
    "an id with a line break": ({"provider_id": "a\n"}, "provider_id"),
    "dots": ({"provider_id": ".."}, "provider_id"),
    "no type": ({"provider_type": None}, "provider_type"),
    "no model": ({"model_name": None}, "model_name"),
    "models in one text": ({"models": "fast"}, "models"),
    "a number for a key": ({"api_key": 7}, "api_key"),
    "a URL without scheme": ({"base_url": "localhost:1"}, "base_url"),
    "a negative priority": ({"priority": -1}, "priority"),
    "no attempts": ({"retry": {"max_attempts": 0}}, "retry.max_attempts"),
    "no time": ({"timeouts": {"total": 0}}, "timeouts.total"),
    "an unknown field": ({"modelname": "x"}, "modelname"),
    "an unknown field inside": ({"retry": {"tries": 1}}, "retry.tries"),
    "verify: yes": ({"verify": "yes"}, "verify"),
    "verify: 1": ({"verify": 1}, "verify"),
    "headers in a list": ({"headers": []}, "headers"),
    "a variable for a key": ({"api_key": "os.environ/HOME"}, "api_key"),
    "a variable in params": ({"params": {"aws_region_name": "os.environ/HOME"}}, "params.aws_region_name"),
    "a variable, nested": ({"params": {"a": [{"b": "os.environ/HOME"}]}}, "params.a.0.b"),
    "a token from a file": ({"params": {"azure_ad_token": "oidc/file//etc/passwd"}}, "params.azure_ad_token"),
    "a file's URL": ({"params": {"a": "file:///etc/passwd"}}, "params.a"),
    "a path to credentials": ({"params": {"vertex_credentials": "/etc/key.json"}}, "params.vertex_credentials"),
    "a relative path to them": ({"params": {"vertex_credentials": "key.json"}}, "params.vertex_credentials"),
    "a key file": ({"params": {"oci_key_file": "k.pem"}}, "params.oci_key_file"),
    "a model's file": ({"params": {"path": "models/x.gguf"}}, "params.path"),
    "a CA bundle": ({"params": {"ssl_verify": "ca.pem"}}, "params.ssl_verify"),
    "a profile of this machine's user": ({"params": {"aws_profile_name": "prod"}}, "params.aws_profile_name"),
    "a file within credentials": (
        {"params": {"vertex_credentials": {"credential_source": {"file": "/etc/passwd"}}}},
        "params.vertex_credentials.credential_source.file",
    ),
    "a program within credentials": (
        {"params": {"vertex_credentials": {"credential_source": {"executable": {"command": "id"}}}}},
        "params.vertex_credentials.credential_source.executable.command",
    ),
    "an unknown type": ({"provider_type": "nonsense_ai"}, None),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_registration_names_the_field(name: str, server: Server) -> None:
    changes, param = BAD[name]
    body = {field: value for field, value in {**provider(refuse()), **changes}.items() if value is not None}
    got = await server.ask("POST", "/providers", body)
    assert (got.status, got.body["error"]["param"]) == (400, param), f"{name}: {got.body}"
    assert param is None or param.split(".")[-1] in got.message
    assert (await server.ask("GET", "/providers")).body == {"providers": []}


async def test_every_mistake_is_named_at_once(server: Server) -> None:
    got = await server.ask("POST", "/providers", {"provider_id": "a b", "priority": "x", "oops": 1})
    for field in ("provider_id", "provider_type", "model_name", "priority", "oops"):
        assert field in got.message


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 100_000, b'{"a":' * 900 + b"1" + b"}" * 900])
async def test_a_body_that_is_no_object_is_refused(method: str, body: bytes, server: Server) -> None:
    await server.register(refuse())
    got = await server.ask(method, "/providers" if method == "POST" else "/providers/main", body)
    assert got.status == 400
    assert got.message


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_params_may_not_be_nested_without_end(method: str, server: Server) -> None:
    await server.register(refuse())
    deep: Any = 1
    for _ in range(300):
        deep = {"a": deep}
    where = "/providers" if method == "POST" else "/providers/main"
    got = await server.ask(method, where, {**provider(refuse()), "params": {"x": deep}})
    assert (got.status, "nested" in got.message) == (400, True)


async def test_harmless_params_pass(server: Server) -> None:
    params = {
        "api_path": "/v1",
        "home": "~",
        "region": "us-east-1",
        "ssl_verify": True,
        "options": ["/a", {"profile": "fast", "inference_profile": "arn:aws:bedrock:eu:1:inference-profile/x"}],
        "vertex_credentials": {"type": "service_account", "client_x509_cert_url": "https://host/x"},
    }
    got = await server.register(refuse(), params=params)
    assert got.status == 201
    assert got.body["params"] == {**params, "vertex_credentials": "[redacted]"}


async def test_a_provider_that_is_removed_or_replaced_finishes_its_streams(server: Server) -> None:
    go = asyncio.Event()
    async with ScriptedUpstream([*begun("Hel"), go, *text("lo")[2:]]) as upstream:
        for change in ("DELETE", "POST", "PATCH"):
            await server.register(upstream)
            go.clear()
            async with server.stream(chat()) as response:
                while b"Hel" not in await response.content.readany():
                    pass
                where = "/providers" if change == "POST" else "/providers/main"
                body = provider(refuse()) if change == "POST" else {"base_url": refuse()}
                assert (await server.ask(change, where, body)).status in (200, 201)
                go.set()
                assert (await response.read()).endswith(b"data: [DONE]\n\n"), f"{change} broke a running stream"


async def test_changing_a_provider_puts_it_back_in_service(server: Server) -> None:
    await server.register(refuse())
    for _ in range(5):
        assert (await server.ask("POST", "/v1/chat/completions", chat())).status == 502
    assert (await server.ask("GET", "/providers/health")).body["providers"]["main"]["state"] == "open"
    async with ScriptedUpstream(text("a")) as upstream:
        await server.ask("PATCH", "/providers/main", {"base_url": upstream.url})
        assert (await server.ask("GET", "/providers/health")).body["providers"]["main"]["state"] == "degraded"


async def test_a_client_that_leaves_while_we_verify_registers_nothing_twice(server: Server) -> None:
    async with ScriptedUpstream(hang_before()) as upstream:
        asking = asyncio.create_task(server.register(upstream, verify=True))
        await upstream.until(lambda it: len(it.requests) == 1)
        asking.cancel()
        assert (await server.ask("GET", "/providers")).body == {"providers": []}, "registered before it was verified"


async def test_a_provider_that_runs_code_cannot_be_registered(tmp_path: Path) -> None:
    """Whoever holds the admin key would otherwise choose what this machine imports."""
    (path := tmp_path / "providers.yaml").write_text("plugins: [plugins.agno_agent]")
    body = {"provider_id": "a", "provider_type": "agno_native", "model_name": "m", "params": {"agent": "antigravity:x"}}
    async with serving(path) as server:
        for where in PATHS:
            got = await server.ask("POST", where, body)
            assert (got.status, got.body["error"]["param"]) == (400, "provider_type"), f"{where}: {got.body}"
            assert "providers.yaml" in got.message
        await server.register(refuse())
        got = await server.ask("PATCH", "/providers/main", {"provider_type": "agno_native"})
        assert (got.status, got.body["error"]["param"]) == (400, "provider_type")
        assert "antigravity" not in sys.modules, "it was imported nevertheless"
