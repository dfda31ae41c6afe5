"""An Idempotency-Key names a durable stream: asked again it is the same one, and costs one upstream call."""

import asyncio
from typing import Any

import pytest

from proxy.testing import ScriptedUpstream, begun, sse, status, text
from tests.process import until
from tests.server import Answered, Server, chat

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


async def ask(server: Server, body: Any, key: str | None = "k1", path: str = CHAT, **headers: str) -> Answered:
    named = {} if key is None else {"idempotency_key": key}
    return await server.ask("POST", path, body, **named, **headers)


async def test_the_same_key_is_the_same_stream(server: Server) -> None:
    async with ScriptedUpstream(text("Hel", "lo")) as upstream:
        await server.register(upstream)
        first, again = [await ask(server, chat(stream=True)) for _ in range(2)]
        assert first.headers["x-weir-stream-id"] == again.headers["x-weir-stream-id"]
        assert (first.status, first.body) == (again.status, again.body)
        assert first.body.startswith(b"id: 1-1-"), "what a key names can be come back to"
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_also_for_requests_at_the_same_moment_and_while_it_runs(server: Server, stream: bool) -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream([*begun("Hel"), gate, *text("lo")[2:]]) as upstream:
        await server.register(upstream)
        asking = [asyncio.create_task(ask(server, chat(stream=stream))) for _ in range(5)]
        await upstream.until(lambda it: len(it.requests) == 1)
        asking.append(asyncio.create_task(ask(server, chat(stream=stream))))
        gate.set()
        answers = await asyncio.gather(*asking)
        assert {got.status for got in answers} == {200}
        assert len({got.headers["x-weir-stream-id"] for got in answers}) == 1
        bodies = [got.body if stream else str(got.body) for got in answers]
        assert len(set(bodies)) == 1
        assert len(upstream.requests) == 1


async def test_whole_answers_are_the_same_too(server: Server) -> None:
    async with ScriptedUpstream(text("Hel", "lo")) as upstream:
        await server.register(upstream)
        first, again = [await ask(server, chat()) for _ in range(2)]
        assert first.body == again.body
        assert first.body["choices"][0]["message"]["content"] == "Hello"
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "other",
    [chat("other"), chat(stream=True), chat(temperature=0)],
    ids=["other words", "streamed", "another field"],
)
async def test_the_same_key_with_another_body_is_refused(server: Server, other: Any) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        assert (await ask(server, chat())).status == 200
        got = await ask(server, other)
        assert (got.status, got.body["error"]["code"]) == (422, "idempotency_key_reused")
        assert len(upstream.requests) == 1


async def test_the_same_key_for_another_mode_or_path_is_refused(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        assert (await ask(server, chat(stream=True))).status == 200
        assert (await ask(server, chat(stream=True), x_weir_mode="buffered")).status == 422
        assert (await ask(server, chat(stream=True), path="/api/streaming/chat")).status == 422


async def test_how_the_json_is_written_makes_no_difference(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        for body in (
            b'{"model":"main","messages":[{"role":"user","content":"hi"}]}',
            b'{ "messages": [ {"content": "hi", "role": "user"} ], "model": "main" }',
        ):
            assert (await ask(server, body)).status == 200
        assert len(upstream.requests) == 1


async def test_a_key_belongs_to_whoever_uses_it(guarded: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        guarded.headers = {"x-api-key": "admin-key-1"}
        await guarded.register(upstream)
        guarded.headers = {}
        ids = set()
        for key in ("client-key-1", "client-key-2", "client-key-1"):
            got = await ask(guarded, chat(), x_api_key=key)
            assert got.status == 200
            ids.add(got.headers["x-weir-stream-id"])
        assert (len(ids), len(upstream.requests)) == (2, 2)
        (stream_id, *_) = ids
        theirs = [
            (await guarded.ask("GET", f"/v1/streams/{stream_id}/status", x_api_key=key)).status
            for key in ("client-key-1", "client-key-2")
        ]
        assert sorted(theirs) == [200, 404], "a stream is its owner's"


@pytest.mark.parametrize("stream", [True, False])
async def test_nothing_is_kept_of_what_nobody_could_answer(server: Server, stream: bool) -> None:
    async with ScriptedUpstream(status(500, "boom"), text("a")) as upstream:
        await server.register(upstream)
        failed = await ask(server, chat(stream=stream))
        assert (failed.status, "boom" in failed.message) == (502, True)
        await until(lambda: not [*server.weir.durable._produced], "the end to be noted")
        assert (await ask(server, chat(stream=stream))).status == 200
        assert len(upstream.requests) == 2


async def test_a_request_that_is_wrong_uses_no_key_up(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        assert (await ask(server, chat(model="nobody"))).status == 404
        assert (await ask(server, {"messages": 1})).status == 400
        assert (await ask(server, b"{")).status == 400
        assert (await ask(server, chat())).status == 200


async def test_a_stream_that_broke_is_the_same_broken_stream(server: Server) -> None:
    """What was said must not change, and its provider has been paid."""
    async with ScriptedUpstream([*begun("a"), sse("[DONE]")], text("b")) as upstream:
        await server.register(upstream)
        first, again = [await ask(server, chat(stream=True)) for _ in range(2)]
        assert first.body == again.body
        assert b'"how":"failed"' in first.body
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("key", "body", "headers", "param"),
    [
        ("k" * 256, chat(), {}, "Idempotency-Key"),
        ("", chat(), {}, "Idempotency-Key"),
        ("k", chat(weir={"durable": False}), {}, "weir.durable"),
        ("k", chat(), {"x_weir_durable": "false"}, "weir.durable"),
        (None, chat(), {"x_weir_durable": "perhaps"}, "x-weir-durable"),
    ],
)
async def test_what_makes_no_sense_is_told(
    server: Server, key: str | None, body: Any, headers: dict[str, str], param: str
) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        got = await ask(server, body, key, **headers)
        assert (got.status, got.body["error"]["param"]) == (400, param)
        assert not upstream.requests


async def test_the_ai_sdks_chat_may_have_one_too(server: Server) -> None:
    message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        got = [await ask(server, {"id": "c1", "messages": [message]}, path="/api/chat") for _ in range(2)]
        assert got[0].body == got[1].body
        assert len(upstream.requests) == 1
