"""The AI SDK's chat, unmodified, on a serving Weir: `POST /api/chat`, with a provider behind it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.testing import Answer, ScriptedUpstream, Step, chunk, cut_after, hang_after, sse, status, text
from tests.clients.node import Program, needs_clients, node
from tests.clients.test_ai_sdk import VERSIONS
from tests.server import Server, serving

pytestmark = [pytest.mark.anyio, needs_clients]


@pytest.fixture(scope="module", params=VERSIONS)
async def sdk(request: pytest.FixtureRequest) -> AsyncIterator[Program]:
    async with node("chat.mjs", request.param) as program:
        yield program


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


async def chat(sdk: Program, server: Server, *steps: Any, **play: Any) -> Any:
    return await sdk.ask({"api": f"{server.url}/api/chat", "steps": steps or [{"send": "hi"}], **play})


def texts(held: Any) -> list[str]:
    """The text of each message."""
    return [
        "".join(part["text"] for part in message["parts"] if part["type"] == "text") for message in held["messages"]
    ]


async def test_a_conversation(sdk: Program, server: Server) -> None:
    async with ScriptedUpstream(text("Hel", "lo."), text("Yes."), text("No.")) as upstream:
        await server.register(upstream)
        held = await chat(sdk, server, {"send": "hi"}, {"send": "sure?"}, {"regenerate": True})
    assert (held["status"], texts(held)) == ("ready", ["hi", "Hello.", "sure?", "No."])
    assert [request.body["messages"] for request in upstream.requests[1:]] == [
        [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "sure?"},
        ]
    ] * 2


async def test_a_tool_that_the_page_runs(sdk: Program, server: Server) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    calling: list[Step] = [
        Answer(),
        sse(chunk({"role": "assistant", "tool_calls": [call]}), chunk(finish="tool_calls"), "[DONE]"),
    ]
    tools = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}]
    async with ScriptedUpstream(calling, text("Noon.")) as upstream:
        await server.register(upstream)
        held = await chat(sdk, server, body={"tools": tools}, tools={"clock": "12:00"}, auto=True)
    assert (held["status"], texts(held)) == ("ready", ["hi", "Noon."])
    assert [request.body["tools"] for request in upstream.requests] == [tools, tools]
    assert upstream.requests[1].body["messages"][2] == {"role": "tool", "tool_call_id": "c1", "content": "12:00"}


async def test_an_answer_that_is_cut_short_is_no_whole_answer(sdk: Program, server: Server) -> None:
    async with ScriptedUpstream(cut_after(2)) as upstream:
        await server.register(upstream)
        held = await chat(sdk, server)
    assert (held["status"], texts(held)) == ("error", ["hi", "la la "])
    assert "finish_reason" in held["error"]


async def test_no_answer_is_an_error_that_says_why(sdk: Program, server: Server) -> None:
    async with ScriptedUpstream(status(400, "the prompt is too long")) as upstream:
        await server.register(upstream)
        held = await chat(sdk, server)
    assert (held["status"], texts(held)) == ("error", ["hi"])
    assert "the prompt is too long" in held["error"]


async def test_the_page_stops_the_answer_and_the_provider_is_told(sdk: Program, server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream:
        await server.register(upstream)
        held = await chat(sdk, server, {"send": "sing", "stop": "la"})
        await upstream.disconnected()
    assert (held["status"], texts(held)) == ("ready", ["sing", "la "])


async def test_two_providers_answer_at_once(sdk: Program, server: Server) -> None:
    async with ScriptedUpstream(text("A")) as one, ScriptedUpstream(cut_after(1)) as two:
        await server.register(one, "one")
        await server.register(two, "two")
        asked = {"provider_ids": ["one", "two"], "generator_mode": "interleaved"}
        held = await chat(sdk, server, body=asked)
    parts = held["messages"][-1]["parts"]
    said = {part["providerMetadata"]["weir"]["source"]: part["text"] for part in parts if part["type"] == "text"}
    assert said == {"one": "A", "two": "la "}
    ends = {part["data"]["source"]: part["data"]["reason"] for part in parts if part["type"] == "data-source-end"}
    assert (held["status"], ends) == ("ready", {"one": "finish", "two": "error"})
