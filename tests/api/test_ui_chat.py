"""/api/chat: the AI SDK's own body, its own stream. The SDK itself asks in tests/clients."""

import asyncio
from typing import Any

import msgspec
import pytest

from proxy.testing import ScriptedUpstream, begun, text
from tests.process import until
from tests.server import Server

pytestmark = pytest.mark.anyio


def said(role: str, text: str, id: str = "m1") -> dict[str, Any]:
    return {"id": id, "role": role, "parts": [{"type": "text", "text": text}]}


def chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": "c1", "messages": [*messages], "trigger": "submit-message", **fields}


async def parts(server: Server, body: dict[str, Any]) -> list[dict[str, Any]]:
    got = await server.ask("POST", "/api/chat", body)
    assert got.status == 200, got.body
    lines = got.body.split(b"\n\n")
    assert lines[-2:] == [b"data: [DONE]", b""], "the end is missing"
    return [msgspec.json.decode(line[6:]) for line in lines[:-2] if line.startswith(b"data: ")]


async def session(server: Server) -> list[str]:
    """What has been said, as the session has it."""
    body = (await server.ask("GET", "/api/streaming/sessions/c1")).body
    return [
        message["content"]
        for turn in body["turns"]
        for message in (*turn["messages"], *(answer["message"] for answer in turn["answers"]))
    ]


async def test_a_chat_with_the_preferred_provider(server: Server) -> None:
    async with ScriptedUpstream(text("one")) as upstream:
        await server.register(upstream)
        got = await parts(server, chat(said("user", "hi"), temperature=0.5))
        assert [part["type"] for part in got] == [
            "start",
            "start-step",
            "text-start",
            "text-delta",
            "text-end",
            "finish-step",
            "finish",
        ]
        assert upstream.requests[0].body["messages"] == [{"role": "user", "content": "hi"}]
        assert upstream.requests[0].body["temperature"] == 0.5
        assert not {"id", "trigger", "messageId"} & upstream.requests[0].body.keys()


async def test_the_client_keeps_the_conversation_and_the_session_too(server: Server) -> None:
    async with ScriptedUpstream(text("one"), text("two"), text("other")) as upstream:
        await server.register(upstream)
        await parts(server, chat(said("user", "first")))
        whole = [said("user", "first"), said("assistant", "one"), said("user", "second")]
        await parts(server, chat(*whole))
        assert [message["content"] for message in upstream.requests[1].body["messages"]] == ["first", "one", "second"]
        assert await session(server) == ["first", "one", "second", "two"]
        await parts(server, chat(*whole, trigger="regenerate-message", messageId="m9"))
        assert await session(server) == ["first", "one", "second", "other"], "the last turn was not replaced"


async def test_who_asks_again_what_never_came_takes_nothing_else_back(server: Server) -> None:
    """A page's \"try again\" is `regenerate()`, also after a request that got lost, or was refused."""
    async with ScriptedUpstream(text("one"), text("two")) as upstream:
        await server.register(upstream)
        await parts(server, chat(said("user", "first")))
        whole = [said("user", "first"), said("assistant", "one"), said("user", "second")]
        assert (await server.ask("POST", "/api/chat", chat(*whole, provider_id="nobody"))).status == 404
        await parts(server, chat(*whole, trigger="regenerate-message"))
        assert await session(server) == ["first", "one", "second", "two"]


async def test_a_mode_and_a_provider_may_be_named(server: Server) -> None:
    async with ScriptedUpstream(text("Hel", "lo")) as upstream:
        await server.register(upstream, "a")
        got = await parts(server, chat(said("user", "hi"), provider_id="a", generator_mode="buffered"))
        assert [part["delta"] for part in got if part["type"] == "text-delta"] == ["Hello"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": "c1"},
        {"id": 1, "messages": []},
        chat(),
        chat({"role": "user"}),
        chat({"id": "m", "role": "user", "parts": [{"type": "text"}]}),
        chat(said("user", "hi"), trigger="dance"),
        chat(said("user", "hi"), weir=1),
        {**chat(said("user", "hi")), "id": "no/id"},
    ],
)
async def test_bad_input_is_told(body: dict[str, Any], server: Server) -> None:
    async with ScriptedUpstream(text("one")) as upstream:
        await server.register(upstream)
        got = await server.ask("POST", "/api/chat", body)
        assert got.status == 400, got.body
        assert got.message
        assert not upstream.requests


DURABLE: dict[str, Any] = {"weir": {"durable": True}}


async def test_what_is_being_answered_is_read_from_its_beginning_and_to_its_end(server: Server) -> None:
    more = asyncio.Event()
    async with ScriptedUpstream([*begun("Hel"), more, *text("lo")[2:]]) as upstream:
        await server.register(upstream)
        assert (await server.ask("GET", "/api/chat/c1/stream")).status == 204
        asking = asyncio.create_task(server.ask("POST", "/api/chat", chat(said("user", "hi"), **DURABLE)))
        await upstream.until(lambda it: len(it.requests) == 1)
        resuming = asyncio.create_task(server.ask("GET", "/api/chat/c1/stream"))
        (produced,) = server.weir.durable._produced
        await until(lambda: produced.feed.readers == 2, "a second reader, while it is being answered")
        more.set()
        first, again = await asking, await resuming
        assert (again.status, again.headers["x-vercel-ai-ui-message-stream"]) == (200, "v1")
        assert again.body == first.body
        ended = await server.ask("GET", "/api/chat/c1/stream")
        assert (ended.status, ended.body) == (204, b""), "nothing is being answered any more"
        assert len(upstream.requests) == 1


async def test_what_is_read_again_takes_no_place_of_the_message_it_goes_on_with(server: Server) -> None:
    more = asyncio.Event()
    async with ScriptedUpstream([*begun("Hel"), more, *text("lo")[2:]]) as upstream:
        await server.register(upstream)
        body = chat(said("user", "hi"), said("assistant", "I look.", id="a1"), **DURABLE)
        asking = asyncio.create_task(server.ask("POST", "/api/chat", body))
        await upstream.until(lambda it: len(it.requests) == 1)
        resuming = asyncio.create_task(server.ask("GET", "/api/chat/c1/stream"))
        (produced,) = server.weir.durable._produced
        await until(lambda: produced.feed.readers == 2, "a second reader, while it is being answered")
        more.set()
        assert b'"messageId":"a1"' in (await asking).body
        assert b'"messageId":"a1"' not in (await resuming).body


async def test_what_is_not_durable_cannot_be_resumed(server: Server) -> None:
    more = asyncio.Event()
    async with ScriptedUpstream([*begun("Hel"), more, *text("lo")[2:]]) as upstream:
        await server.register(upstream)
        asking = asyncio.create_task(server.ask("POST", "/api/chat", chat(said("user", "hi"))))
        await upstream.until(lambda it: len(it.requests) == 1)
        assert (await server.ask("GET", "/api/chat/c1/stream")).status == 204
        more.set()
        assert (await asking).status == 200


async def test_a_chat_of_somebody_elses_is_none(guarded: Server) -> None:
    more = asyncio.Event()
    async with ScriptedUpstream([*begun("Hel"), more, *text("lo")[2:]]) as upstream:
        guarded.headers = {"x-api-key": "admin-key-1"}
        await guarded.register(upstream)
        guarded.headers = {"x-api-key": "client-key-1"}
        body = chat(said("user", "hi"), user_id="ann", **DURABLE)
        asking = asyncio.create_task(guarded.ask("POST", "/api/chat", body))
        await upstream.until(lambda it: len(it.requests) == 1)
        for path, key in (("c1", "client-key-2"), ("c1", "client-key-1"), ("c2", "client-key-1")):
            guarded.headers = {"x-api-key": key}
            assert (await guarded.ask("GET", f"/api/chat/{path}/stream")).status == 204
        guarded.headers = {"x-api-key": "client-key-1"}
        hers = asyncio.create_task(guarded.ask("GET", "/api/chat/c1/stream?user_id=ann"))
        more.set()
        assert (await hers).body == (await asking).body


async def test_a_newer_client_is_told_to_take_back_what_was_said(server: Server) -> None:
    async with ScriptedUpstream(begun("la "), text("new")) as upstream:
        await server.register(upstream)
        body = chat(said("user", "hi"), ui=7, weir={"recovery": "restart"})
        assert "reset-step" in [part["type"] for part in await parts(server, body)]
        assert "ui" not in upstream.requests[0].body
        assert await session(server) == ["hi", "new"]
