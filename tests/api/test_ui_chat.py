"""POST /api/chat: the AI SDK's own body, its own stream. The SDK itself asks in tests/clients."""

from typing import Any

import msgspec
import pytest

from proxy.testing import ScriptedUpstream, text
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
