"""How a process says goodbye: not ready at once, serving a while, streams ended honestly, exit 0."""

import asyncio
import json
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from proxy.testing import Answer, Fault, Script, ScriptedUpstream, begun, chunk, sse, text
from tests.process import ROOT, Weir, call, chat, until, weir

pytestmark = pytest.mark.anyio


def config(url: str) -> str:
    return f"providers: [{{provider_id: main, provider_type: openai_compatible, model_name: m, base_url: '{url}'}}]"


async def begin(session: aiohttp.ClientSession, served: Weir) -> aiohttp.ClientResponse:
    """A stream of which the first token has come."""
    response = await session.post(f"{served.url}/v1/chat/completions", json=chat(stream=True))
    while b'"la "' not in await response.content.readline():
        pass
    return response


async def test_a_running_stream_is_let_finish(tmp_path: Path) -> None:
    gate = asyncio.Event()
    script = [*begun("la "), gate, sse(chunk({"content": "end"})), sse(chunk(finish="stop")), sse("[DONE]")]
    async with (
        ScriptedUpstream(script, text("late")) as upstream,
        weir(tmp_path, config(upstream.url), WEIR_DRAIN="1") as served,
        aiohttp.ClientSession() as session,
    ):
        stream = await begin(session, served)
        served.signal(signal.SIGTERM)
        await until(lambda: _status(f"{served.url}/health/ready", 503), "not ready after SIGTERM", 0.9)
        status, _ = await call(f"{served.url}/v1/chat/completions", chat())
        assert status == 200, "while it drains, a new request is still served"
        gate.set()
        rest = await stream.text()
        assert rest.endswith("data: [DONE]\n\n"), f"the stream was not let finish: {rest}"
        assert await served.ended() == 0, served.log


async def test_a_stream_that_takes_too_long_ends_marked(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream([*begun("la "), Fault.HANG]) as upstream,
        weir(tmp_path, config(upstream.url), WEIR_GRACE="0.2") as served,
        aiohttp.ClientSession() as session,
    ):
        stream = await begin(session, served)
        served.signal(signal.SIGTERM)
        rest = await stream.text()
        assert '"error"' in rest, f"the end was not marked: {rest}"
        assert "shutting down" in rest
        assert "[DONE]" not in rest, "a broken stream must not look complete"
        await upstream.disconnected()
        assert await served.ended() == 0, served.log


async def test_ctrl_c_ends_at_once_and_marked(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream([*begun("la "), Fault.HANG]) as upstream,
        weir(tmp_path, config(upstream.url), WEIR_DRAIN="60", WEIR_GRACE="60") as served,
        aiohttp.ClientSession() as session,
    ):
        stream = await begin(session, served)
        served.signal(signal.SIGINT)
        assert '"error"' in await stream.text(), "the end was not marked"
        assert await served.ended() == 0, served.log
    assert "Traceback" not in served.log


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
async def test_a_body_that_does_not_come_holds_nothing_up(tmp_path: Path, sig: signal.Signals) -> None:
    async with weir(tmp_path, WEIR_GRACE="0.2" if sig == signal.SIGTERM else "60") as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
        writer.write(b"expect: 100-continue\r\ncontent-length: 9\r\n\r\n")
        assert b"100" in await reader.readline()
        served.signal(sig)
        async with asyncio.timeout(4):  # by itself uvicorn would give it 5 seconds more than the grace
            rest = await reader.read()
        assert b"408" in rest, f"not told in our words: {rest!r}"
        assert await served.ended() == 0
        writer.close()
    assert "ERROR" not in served.log, served.log


async def test_clients_that_take_nothing_hold_nothing_up(tmp_path: Path) -> None:
    endless: Script = [Answer(), *[sse(chunk({"content": "x" * 65536}))] * 400]
    async with (
        ScriptedUpstream(endless) as upstream,
        weir(tmp_path, config(upstream.url), WEIR_STALL="0.3", WEIR_GRACE="60") as served,
    ):
        port = int(served.url.rpartition(":")[2])
        body = json.dumps(chat(stream=True)).encode()
        writers = []
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
            writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
            writers.append(writer)
        await until(lambda: served.log.count("end=abort") == 3, "clients that take nothing were not let go")
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0, served.log
        for writer in writers:
            writer.close()
    assert "ERROR" not in served.log, served.log


async def test_the_engine_dies_with_weir(tmp_path: Path) -> None:
    """Also when Weir is killed and cannot say goodbye."""
    async with weir(tmp_path, str(ROOT / "providers.yaml")) as served:
        status, _ = await call(f"{served.url}/v1/chat/completions", chat(model="local", max_tokens=1))
        assert status == 200, served.log
        children = [
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(pid) == served.process.pid
        ]
        assert children, "the engine is not a child of Weir"
        served.signal(signal.SIGKILL)
        await served.ended()
        await until(lambda: not any(_alive(pid) for pid in children), "the engine outlived Weir", 5)


async def _status(url: str, expected: int) -> bool:
    return (await call(url))[0] == expected


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
