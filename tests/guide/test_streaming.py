"""Streaming, row by row: over HTTP, in every format, in sessions, and without a server."""

import json

import pytest

from proxy import Finish, GeneratorConfig, GeneratorMode, Start, StreamFormat, TextDelta, Weir
from proxy.testing import ScriptedUpstream, cut_after, play, text
from tests.guide.asking import HI, heard, pieces
from tests.server import Answered, serving
from tests.socket_client import connected, text_of

pytestmark = pytest.mark.anyio


def lines_of(got: Answered) -> list[str]:
    assert got.headers["content-type"].startswith("text/event-stream")
    return [line for line in got.body.decode().split("\n\n") if line]


async def test_g09_one_request_streams_as_sse() -> None:
    """`POST /api/streaming/chat` with `{"messages", "stream_format": "sse", "provider_id"}`; lines
    `data: {"type":"text-delta","content":"..."}`, at the end `finish`; failures as `{"type":"error","error":...}`."""
    async with ScriptedUpstream(text("hel", "lo"), cut_after(1)) as upstream, serving() as server:
        await server.register(upstream)
        body = {"messages": HI, "stream_format": "sse", "provider_id": "main"}
        whole = lines_of(await server.ask("POST", "/api/streaming/chat", body))
        said = [line for line in whole if line.startswith('data: {"type":"text-delta","content":"')]
        assert [json.loads(line[6:])["content"] for line in said] == ["hel", "lo"]
        assert json.loads(whole[-1][6:])["type"] == "finish"

        broken = lines_of(await server.ask("POST", "/api/streaming/chat", body))
        last = json.loads(broken[-1][6:])
        assert last["type"] == "error"
        assert "finish_reason" in last["error"], "why it broke is not told"
        assert not any('"type":"finish"' in line for line in broken), "a broken answer looks complete"


async def test_g10_output_formats() -> None:
    """`StreamFormat`: SSE, WebSocket, generator (an async generator inside a Python program)."""
    async with ScriptedUpstream(text("hel", "lo")) as upstream, serving() as server, Weir.open() as weir:
        await server.register(upstream)
        assert pieces(await heard(server)) == ["hel", "lo"]
        async with connected(server.url) as socket:
            await socket.ask(provider_id="main")
            assert text_of(await socket.to_end()) == "hello"
        async with server.stream({"messages": HI, "model": "main"}) as openai:
            assert (await openai.read()).endswith(b"data: [DONE]\n\n")

        await weir.register_openai_provider("main", "m", base_url=upstream.url)
        events = [event async for event in weir.stream_chat(HI, stream_format=StreamFormat.GENERATOR)]
        assert pieces(events) == ["hel", "lo"]
        sse = [data async for data in weir.stream_chat(HI, stream_format=StreamFormat.SSE)]
        assert json.loads(sse[1][6:]) == {"type": "text-delta", "content": "hel", "source": "main", "seq": 2}
        frames = [data async for data in weir.stream_chat(HI, stream_format=StreamFormat.WEBSOCKET)]
        assert json.loads(frames[1])["data"]["event_data"]["content"] == "hel"


async def test_g11_sessions() -> None:
    """`create_session().stream_chat(messages, provider_id=..., stream_format=...)`; count of active sessions."""
    async with ScriptedUpstream(text("My name is Weir.")) as upstream, Weir.open() as weir:
        await weir.register_openai_provider("main", "m", base_url=upstream.url)
        session = weir.create_session(user_id="ann")
        await play(session.stream_chat(HI, provider_id="main", stream_format=StreamFormat.GENERATOR))
        again = session.stream_chat([{"role": "user", "content": "Again?"}], provider_id="main", stream_format="sse")
        assert b'"finish"' in [data async for data in again][-1]
        await play(weir.create_session().stream_chat(HI, provider_id="main"))
        assert (await weir.get_statistics())["active_sessions"] == 2
    said = [message["content"] for message in upstream.requests[1].body["messages"]]
    assert said == ["hi", "My name is Weir.", "Again?"], "the model does not know what was said before"
    assert len(upstream.requests[2].body["messages"]) == 1, "another session knows this one's"


async def test_g12_an_in_process_api_with_no_server() -> None:
    """`async with streaming_context(mode, config) as generator: async for event in generator.generate(messages)`."""
    async with ScriptedUpstream(text("a ", "b ", "c")) as upstream, Weir.open() as weir:
        await weir.register_openai_provider("main", "m", base_url=upstream.url)
        events = []
        config = GeneratorConfig(buffer_size=200, flush_interval=60)
        async with weir.streaming_context(GeneratorMode.BUFFERED, config) as generator:
            async for event in generator.generate(HI):
                events.append(event)
    assert isinstance(events[0], Start)
    assert [event.content for event in events if isinstance(event, TextDelta)] == ["a b c"]
    assert isinstance(events[-1], Finish)
