"""POST /api/streaming/chat: the guide's events, the formats, the modes, over a real socket."""

import asyncio
from typing import Any

import msgspec
import pytest

from proxy.testing import ScriptedUpstream, begun, cut_after, hang_before, status, text
from tests.server import Server, serving
from tests.sse_reader import streaming

pytestmark = pytest.mark.anyio

PATH = "/api/streaming/chat"


def asked(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}], **fields}


async def events(server: Server, **fields: Any) -> list[dict[str, Any]]:
    got = await server.ask("POST", PATH, asked(**fields))
    assert got.status == 200, got.body
    return [msgspec.json.decode(line[6:]) for line in got.body.split(b"\n") if line.startswith(b"data: ")]


async def test_the_guides_events(server: Server) -> None:
    async with ScriptedUpstream(text("Hel", "lo", usage=(5, 2))) as upstream:
        await server.register(upstream)
        got = await events(server, provider_id="main", stream_format="sse")
    assert [event["type"] for event in got] == [
        "start",
        "text-delta",
        "text-delta",
        "finish-step",
        "data-usage",
        "finish",
    ]
    assert [event["seq"] for event in got] == [1, 2, 3, 4, 5, 6]
    assert {event["source"] for event in got} == {"main"}
    assert [event["content"] for event in got[1:3]] == ["Hel", "lo"]
    assert got[-1]["usage"]["output_tokens"] == 2


async def test_what_every_stream_says_in_its_head(server: Server) -> None:
    async with ScriptedUpstream(text("hi")) as upstream:
        await server.register(upstream)
        headers = (await server.ask("POST", PATH, asked())).headers
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-weir-provider"] == "main"
    assert headers["x-weir-stream-id"]


async def test_a_provider_that_breaks_ends_the_stream_in_an_error(server: Server) -> None:
    async with ScriptedUpstream(cut_after(2)) as upstream:
        await server.register(upstream)
        *_, last = await events(server)
    assert last["type"] == "error"
    assert "finish_reason" in last["error"]


async def test_total_failure_has_a_status(server: Server) -> None:
    async with ScriptedUpstream(status(401, "bad key")) as upstream:
        await server.register(upstream)
        got = await server.ask("POST", PATH, asked())
    assert got.status == 502
    assert "bad key" in got.message


async def test_silence_is_filled() -> None:
    async with serving(keep_alive=0.01, status_wait=0.01) as server, ScriptedUpstream(hang_before()) as upstream:
        await server.register(upstream)
        for form in ("sse", "ui", "openai"):
            body = msgspec.json.encode(asked(stream_format=form))
            async with server.session.post(server.url + PATH, data=body) as response:
                async with asyncio.timeout(5):
                    assert (await response.content.readline()).startswith(b":"), f"{form}: no comment came"


async def test_the_other_formats(server: Server) -> None:
    async with ScriptedUpstream(text("hi")) as upstream:
        await server.register(upstream)
        chunks = (await server.ask("POST", PATH, asked(stream_format="openai"))).body
        assert b'"chat.completion.chunk"' in chunks
        assert chunks.endswith(b"data: [DONE]\n\n")
        parts = await server.ask("POST", PATH, asked(stream_format="ui"))
        assert parts.headers["x-vercel-ai-ui-message-stream"] == "v1"
        assert b'{"type":"text-delta","id":"0-0","delta":"hi"}' in parts.body


async def test_a_mode_shapes_what_comes(server: Server) -> None:
    async with ScriptedUpstream(text("Hel", "lo ", "wor", "ld")) as upstream:
        await server.register(upstream)
        for wish, pieces in [
            ({"generator_mode": "buffered", "generator_config": {"buffer_size": 6}}, ["Hello ", "world"]),
            ({"generator_mode": "chunked", "generator_config": {"unit": "words", "size": 1}}, ["Hello ", "world"]),
        ]:
            got = await events(server, **wish)
            assert [event["content"] for event in got if event["type"] == "text-delta"] == pieces, wish


async def test_modes_are_within_reach_of_openais_clients(server: Server) -> None:
    async with ScriptedUpstream(text("Hel", "lo ", "wor", "ld")) as upstream:
        await server.register(upstream)
        async with server.openai() as client:
            by_field = await client.chat.completions.create(
                model="main",
                messages=[{"role": "user", "content": "hi"}],
                stream=True,
                extra_body={"weir": {"mode": "chunked", "config": {"unit": "words", "size": 2}}},
            )
            pieces = [chunk.choices[0].delta.content async for chunk in by_field if chunk.choices]
            assert [piece for piece in pieces if piece] == ["Hello world"]
            by_header = await client.chat.completions.create(
                model="main",
                messages=[{"role": "user", "content": "hi"}],
                stream=True,
                extra_headers={"x-weir-mode": "buffered"},
            )
            pieces = [chunk.choices[0].delta.content async for chunk in by_header if chunk.choices]
            assert [piece for piece in pieces if piece] == ["Hello world"]


async def test_several_providers_answer_into_one_stream(server: Server) -> None:
    async with ScriptedUpstream(text("one")) as one, ScriptedUpstream(cut_after(1)) as two:
        await server.register(one, "a")
        await server.register(two, "b")
        got = await events(server, provider_ids=["a", "b"], generator_mode="interleaved")
    said = {name: "".join(it.get("content", "") for it in got if it["source"] == name) for name in "ab"}
    assert said == {"a": "one", "b": "la "}
    ends = {event["source"]: event["reason"] for event in got if event["type"] == "data-source-end"}
    assert ends == {"a": "finish", "b": "error"}
    assert got[-1]["type"] == "finish"


async def test_on_openais_wire_a_source_is_a_choice(server: Server) -> None:
    async with ScriptedUpstream(text("one")) as one, ScriptedUpstream(cut_after(1)) as two:
        await server.register(one, "a")
        await server.register(two, "b")
        async with server.openai() as client:
            both = await client.chat.completions.create(
                model="a",
                messages=[{"role": "user", "content": "hi"}],
                stream=True,
                extra_body={"weir": {"mode": "interleaved", "providers": ["a", "b"]}},
            )
            said, ends = {0: "", 1: ""}, {}
            async for chunk in both:
                for choice in chunk.choices:
                    said[choice.index] += choice.delta.content or ""
                    if choice.finish_reason:
                        ends[choice.index] = str(choice.finish_reason)
    assert said == {0: "one", 1: "la "}
    assert ends == {0: "stop", 1: "error"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"generator_mode": "nope"}, "generator_mode"),
        ({"generator_mode": "buffered", "generator_config": {"buffer_size": 0}}, "generator_config.buffer_size"),
        ({"generator_mode": "chunked", "generator_config": {"unit": "miles"}}, "generator_config.unit"),
        ({"generator_mode": "standard", "generator_config": {"x": 1}}, "generator_config.x"),
        ({"provider_id": "nobody"}, "model"),
        ({"stream_format": "websocket"}, "stream_format"),
    ],
)
async def test_a_wrong_wish_is_refused_with_its_name(fields: dict[str, Any], param: str, server: Server) -> None:
    async with ScriptedUpstream(text("hi")) as upstream:
        await server.register(upstream)
        got = await server.ask("POST", PATH, asked(**fields))
        assert 400 <= got.status < 500
        assert got.body["error"]["param"] == param, got.body
        assert got.message
        assert not upstream.requests


async def test_without_a_provider_it_says_so(server: Server) -> None:
    got = await server.ask("POST", PATH, asked())
    assert got.status == 404
    assert "no provider is registered" in got.message


async def test_a_paused_reader_holds_its_provider_back_and_nobody_is_blamed(server: Server) -> None:
    more = asyncio.Event()
    async with ScriptedUpstream([*begun("one"), more, *text("two")[2:]]) as upstream:
        await server.register(upstream, timeouts={"between_tokens": 0.2})
        async with streaming(server.url) as reader:
            await reader.until("text-delta")
            path = f"/api/streaming/streams/{reader.stream_id}"
            paused = await server.ask("POST", f"{path}/pause", {"seconds": 0.5})
            assert (paused.status, paused.body["position"]) == (200, 2)
            more.set()
            await reader.until("finish")  # the pause ends by itself
            assert reader.text == "onetwo"


async def test_an_admin_is_told_what_happens_to_one_request(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedUpstream(status(500), text("hi")) as upstream:
        await server.register(upstream, retry={"max_attempts": 2, "initial": 0})
        with caplog.at_level("INFO", "proxy.journey"):
            got = await server.ask("POST", PATH, asked(), x_request_id="seen", x_weir_debug="1")
            await server.ask("POST", PATH, asked(), x_request_id="unseen")
    assert got.status == 200
    told = [record.getMessage() for record in caplog.records if record.name == "proxy.journey"]
    assert [line for line in told if "request seen: asks main, attempt 2" in line], told
    assert len([line for line in told if "request unseen" in line]) == 1, "a request nobody asked about says much"


async def test_content_is_logged_only_where_that_is_switched_on(caplog: pytest.LogCaptureFixture) -> None:
    for switched_on in (False, True):
        caplog.clear()
        async with serving(log_content=switched_on) as server, ScriptedUpstream(text("an answer")) as upstream:
            await server.register(upstream)
            with caplog.at_level("DEBUG", "proxy"):
                await server.ask("POST", PATH, asked(messages=[{"role": "user", "content": "a question"}]))
            assert ("a question" in caplog.text and "an answer" in caplog.text) is switched_on
            assert ("a question" in caplog.text or "an answer" in caplog.text) is switched_on
