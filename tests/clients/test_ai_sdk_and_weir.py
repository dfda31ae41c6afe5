"""The AI SDK's chat, unmodified, on a serving Weir: `POST /api/chat`, with a provider behind it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.durable.reader import Reader
from proxy.testing import Answer, ScriptedUpstream, Step, begun, chunk, cut_after, hang_after, sse, status, text
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


@pytest.mark.parametrize("id", ["", "call_0"])
async def test_a_vendor_that_names_every_call_alike(sdk: Program, server: Server, id: str) -> None:
    """Or none: to the SDK the calls of a message are told apart by their ids, those of its earlier steps too."""

    def calling(name: str) -> list[Step]:
        call = {"index": 0, "id": id, "type": "function", "function": {"name": name, "arguments": "{}"}}
        return [Answer(), sse(chunk({"role": "assistant", "tool_calls": [call]}), chunk(finish="tool_calls"), "[DONE]")]

    async with ScriptedUpstream(calling("clock"), calling("weather"), text("Warm, at noon.")) as upstream:
        await server.register(upstream)
        held = await chat(sdk, server, tools={"clock": "12:00", "weather": "warm"}, auto=True)
    assert (held["status"], texts(held)) == ("ready", ["hi", "Warm, at noon."])
    said = [message["content"] for message in upstream.requests[-1].body["messages"] if message["role"] == "tool"]
    assert said == ["12:00", "warm"]


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


async def test_a_conversation_goes_on_from_one_of_them(sdk: Program, server: Server) -> None:
    async with ScriptedUpstream(text("I am A.")) as one, ScriptedUpstream(text("I am B.")) as two:
        await server.register(one, "one")
        await server.register(two, "two")
        await chat(sdk, server, {"send": "hi"}, {"send": "sure?"}, body={"provider_ids": ["one", "two"]})
    said = [upstream.requests[1].body["messages"][1]["content"] for upstream in (one, two)]
    assert said in (["I am A."] * 2, ["I am B."] * 2)


DURABLE = {"weir": {"durable": True}}


async def resumed(
    sdk: Program, server: Server, upstream: ScriptedUpstream, gate: asyncio.Event, step: Any, **play: Any
) -> Any:
    """What a chat holds whose connection broke in mid-answer, and that then took `step`."""
    durable, reading = server.weir.durable, asyncio.Event()
    answering = durable.answering

    async def noticed(*asked: Any) -> Reader | None:
        reader = await answering(*asked)
        reading.set()
        return reader

    durable.answering = noticed  # type: ignore[method-assign,assignment]
    chatting = asyncio.create_task(chat(sdk, server, {"send": "sing", "cut": "la"}, step, body=DURABLE, **play))
    await asyncio.wait({chatting, waiting := asyncio.create_task(reading.wait())}, return_when="FIRST_COMPLETED")
    waiting.cancel()
    assert not upstream.disconnects, "the provider lost its reader with the page"
    gate.set()
    return await chatting


async def test_an_answer_whose_connection_broke_is_read_by_a_page_that_is_loaded_anew(
    sdk: Program, server: Server
) -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream([*begun("la "), gate, *text("end")[2:]]) as upstream:
        await server.register(upstream)
        held = await resumed(sdk, server, upstream, gate, {"resume": True, "anew": True})
        assert (held["status"], held.get("error"), texts(held)) == ("ready", None, ["sing", "la end"])
        assert len(upstream.requests) == 1


async def test_and_by_the_same_page(sdk: Program, server: Server, request: pytest.FixtureRequest) -> None:
    """It is told all of it once more; the first of versions 5 and 6 do not leave out what they have, but add to it."""
    first = "first" in request.node.name
    gate = asyncio.Event()
    async with ScriptedUpstream([*begun("la "), gate, *text("end")[2:]]) as upstream:
        await server.register(upstream)
        held = await resumed(sdk, server, upstream, gate, {"resume": True})
        assert (held["status"], held.get("error")) == ("ready", None)
        assert texts(held) == ["sing", "la la end" if first else "la end"]
        assert len(upstream.requests) == 1


async def test_what_stood_in_the_message_before_is_not_lost(sdk: Program, server: Server) -> None:
    """The answer went on with the message in which the page had run a tool."""
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    calling: list[Step] = [
        Answer(),
        sse(chunk({"role": "assistant", "tool_calls": [call]}), chunk(finish="tool_calls"), "[DONE]"),
    ]
    gate = asyncio.Event()
    async with ScriptedUpstream(calling, [*begun("la "), gate, *text("end")[2:]]) as upstream:
        await server.register(upstream)
        held = await resumed(sdk, server, upstream, gate, {"resume": True}, tools={"clock": "12:00"}, auto=True)
    said = [part for message in held["messages"] for part in message["parts"]]
    assert (held["status"], texts(held)[-1][-6:]) == ("ready", "la end")
    assert next(part["output"] for part in said if part["type"] == "tool-clock") == "12:00"


async def test_where_nothing_is_being_answered_there_is_nothing_to_resume(
    sdk: Program, server: Server, request: pytest.FixtureRequest
) -> None:
    """The chat of 5.0.0 then waits for ever, whatever a server says."""
    waits = "ai5-first" in request.node.name
    async with ScriptedUpstream(text("la")) as upstream:
        await server.register(upstream)
        held = await chat(sdk, server, {"send": "sing"}, {"resume": True}, body=DURABLE)
    assert (held["status"], held.get("error")) == ("submitted" if waits else "ready", None)
    assert texts(held) == ["sing", "la"]


async def test_an_answer_that_is_begun_anew_is_a_new_step(sdk: Program, server: Server) -> None:
    async with ScriptedUpstream(cut_after(2), text("new")) as upstream:
        await server.register(upstream)
        held = await chat(sdk, server, body={"weir": {"recovery": "restart"}})
    parts = [part["type"] for part in held["messages"][-1]["parts"]]
    assert (held["status"], parts) == (
        "ready",
        ["step-start", "text", "data-recovery", "step-start", "text"],
    )


async def test_no_model_is_told_again_what_was_taken_back(sdk: Program, server: Server) -> None:
    async with ScriptedUpstream(cut_after(2), text("new"), text("yes")) as upstream:
        await server.register(upstream)
        await chat(sdk, server, {"send": "hi"}, {"send": "sure?"}, body={"weir": {"recovery": "restart"}})
    assert [message["content"] for message in upstream.requests[-1].body["messages"]] == ["hi", "new", "sure?"]


async def test_a_newer_sdk_takes_back_what_was_said(server: Server) -> None:
    async with node("chat.mjs", "ai7") as sdk, ScriptedUpstream(cut_after(2), text("new")) as upstream:
        await server.register(upstream)
        held = await chat(sdk, server, body={"ui": 7, "weir": {"recovery": "restart"}})
    parts = [part["type"] for part in held["messages"][-1]["parts"]]
    assert (held["status"], texts(held)[-1], parts) == ("ready", "new", ["step-start", "data-recovery", "text"])


async def test_an_answer_that_is_gone_on_with_is_one_text(sdk: Program, server: Server) -> None:
    async with ScriptedUpstream(cut_after(2), text("end")) as upstream:
        await server.register(upstream, prefill=True)
        held = await chat(sdk, server, body={"weir": {"recovery": "continue"}})
    said = [part["text"] for part in held["messages"][-1]["parts"] if part["type"] == "text"]
    assert (held["status"], said) == ("ready", ["la la end"])
