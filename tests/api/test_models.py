"""GET /v1/models: the names a client may use."""

from typing import Any

import pytest

from proxy.circuit import Verdict
from proxy.testing import refuse
from tests.server import Server

pytestmark = pytest.mark.anyio


async def names(server: Server) -> dict[str, Any]:
    got = await server.ask("GET", "/v1/models")
    assert (got.status, got.body["object"]) == (200, "list")
    return {model["id"]: model for model in got.body["data"]}


async def test_every_name_is_listed_once_with_who_serves_it(server: Server) -> None:
    assert await names(server) == {}
    await server.register(refuse(), "second", models=["fast"], priority=2)
    await server.register(refuse(), "first", models=["fast", "first", "org/model:tag"], priority=1)
    listed = await names(server)
    assert sorted(listed) == ["fast", "first", "m", "org/model:tag", "second"]
    assert listed["fast"] == {
        "id": "fast",
        "object": "model",
        "created": 0,
        "owned_by": "first",
        "providers": ["first", "second"],
    }


async def test_one_model_by_any_name_that_can_be_asked(server: Server) -> None:
    await server.register(refuse(), models=["org/model:tag"])
    listed = await names(server)
    for name in listed:
        assert (await server.ask("GET", f"/v1/models/{name}")).body == listed[name]
    got = await server.ask("GET", "/v1/models/main/any-model")
    assert (got.body["id"], got.body["owned_by"]) == ("main/any-model", "main")


async def test_a_provider_that_is_left_out_for_a_while_still_has_its_models(server: Server) -> None:
    for provider in ("first", "second"):
        await server.register(refuse(), provider, models=["fast"])
    server.weir.router.get("first").circuit.learn(Verdict(1, True, 1e12))  # type: ignore[union-attr]
    assert (await server.ask("GET", "/v1/models/fast")).body == (await names(server))["fast"]


async def test_openais_sdk_lists_them(server: Server) -> None:
    await server.register(refuse())
    async with server.openai() as client:
        assert [model.id async for model in client.models.list()] == ["main", "m"]
        assert (await client.models.retrieve("main")).owned_by == "main"


@pytest.mark.parametrize("path", ["nobody", "", "%20", "%zz", "%00", "%ff%fe", "..", "main/", "/main", "%E6%BC%A2"])
async def test_a_name_that_nobody_serves_is_a_404_that_lists_the_names(path: str, server: Server) -> None:
    await server.register(refuse())
    code, body = await server.raw(f"GET /v1/models/{path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    assert code == 404
    assert b"available: m, main" in body
