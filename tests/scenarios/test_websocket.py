"""WebSocket from outside: what the document shows, and how a process says goodbye to its sockets."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from proxy.testing import Answer, Fault, Script, ScriptedUpstream, begun, chunk, sse, text
from tests.documents import examples
from tests.process import Weir, until, weir
from tests.socket_client import TEXT, connected, events, frame, raw

pytestmark = pytest.mark.anyio

(PYTHON,) = examples("docs/websocket.md")
SHUTDOWN = (1012, "Weir is shutting down")


def config(url: str) -> str:
    return f"providers: [{{provider_id: main, provider_type: openai_compatible, model_name: m, base_url: '{url}'}}]"


async def ended(served: Weir, within: float) -> None:
    """It exits with status 0 before long, and has nothing to complain of."""
    async with asyncio.timeout(within):
        assert await served.ended() == 0, served.log
    assert "ERROR" not in served.log, served.log
    assert "Traceback" not in served.log, served.log


async def test_the_example_of_the_document_does_what_it_says(tmp_path: Path) -> None:
    printed: list[str] = []

    def write(*words: object, end: str = "\n", flush: bool = False) -> None:
        printed.append(" ".join(map(str, words)) + end)

    async with (
        ScriptedUpstream(text("Rivers carry ", "mountains to the sea.")) as upstream,
        weir(tmp_path, config(upstream.url)) as served,
    ):
        program = PYTHON.code.replace("ws://127.0.0.1:8000", served.url.replace("http", "ws"))
        await asyncio.to_thread(exec, compile(program, PYTHON.place, "exec"), {"__name__": "x", "print": write})
    assert "".join(printed) == PYTHON.output


async def test_idle_sockets_hold_nothing_up(tmp_path: Path) -> None:
    async with weir(tmp_path, WEIR_GRACE="60") as served, connected(served.url) as one, connected(served.url) as two:
        served.signal(signal.SIGTERM)
        assert await one.closed() == SHUTDOWN
        assert await two.closed() == SHUTDOWN
        await ended(served, 5)


async def test_a_running_chat_is_let_finish(tmp_path: Path) -> None:
    gate = asyncio.Event()
    script = [*begun("la "), gate, sse(chunk({"content": "end"})), sse(chunk(finish="stop")), sse("[DONE]")]
    async with (
        ScriptedUpstream(script) as upstream,
        weir(tmp_path, config(upstream.url), WEIR_GRACE="60") as served,
        connected(served.url) as client,
        connected(served.url) as idle,
    ):
        await client.ask("r")
        await client.until("text-delta")
        served.signal(signal.SIGTERM)
        assert await idle.closed() == SHUTDOWN
        gate.set()
        assert events(await client.to_end("r"))[-1] == "finish"
        assert await client.closed() == SHUTDOWN
        await ended(served, 5)


async def test_a_chat_that_takes_too_long_ends_marked(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream([*begun("la "), Fault.HANG]) as upstream,
        weir(tmp_path, config(upstream.url), WEIR_GRACE="0.2") as served,
        connected(served.url) as client,
    ):
        for name in ("one", "two"):
            await client.ask(name)
            await client.until("text-delta")
        await client.say("pause", "one")
        served.signal(signal.SIGTERM)
        frames = await client.to_end("one", "two")
        assert sorted(events(frames)) == ["abort", "abort"]
        assert frames[-1]["data"]["event_data"]["reason"] == "Weir is shutting down"
        assert await client.closed() == SHUTDOWN
        await upstream.disconnected(2)
        await ended(served, 5)


async def test_a_client_that_takes_nothing_holds_nothing_up(tmp_path: Path) -> None:
    endless: Script = [Answer(), *[sse(chunk({"content": "x" * 1024}))] * 30_000]
    ask = {"message_type": "chat_request", "data": {"messages": [{"role": "user", "content": "hi"}]}}
    async with (
        ScriptedUpstream(endless) as upstream,
        weir(tmp_path, config(upstream.url), WEIR_GRACE="0.2") as served,
        raw(served.url, receive_buffer=4096) as client,
    ):
        await client.send(frame(TEXT, json.dumps(ask).encode()))
        await until(lambda: client.untaken() > 1000, "the answer has begun")
        served.signal(signal.SIGTERM)
        await ended(served, 8)


async def test_killed_clients_leave_nothing_behind(tmp_path: Path) -> None:
    """Their system ends the connection without a word of the protocol's."""
    async with (
        ScriptedUpstream([*begun("la "), Fault.HANG]) as upstream,
        weir(tmp_path, config(upstream.url)) as served,
    ):
        for _ in range(3):
            async with connected(served.url) as client:
                await client.ask()
                await client.until("text-delta")
                client.connection.transport.abort()
        async with asyncio.timeout(1):
            await upstream.disconnected(3)
        served.signal(signal.SIGTERM)
        await ended(served, 5)
