"""The chat in the terminal: it streams, it ends, and whatever goes wrong is one sentence."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.testing import (
    Answer,
    Fault,
    Script,
    ScriptedUpstream,
    begun,
    error_in_stream,
    hang_after,
    refuse,
    status,
    text,
)
from tests.server import LIMIT, serving

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent


@asynccontextmanager
async def chatting(*options: str, **environment: str) -> AsyncIterator[Process]:
    env = {"PATH": os.environ["PATH"], "PYTHONIOENCODING": "utf-8", **environment}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "chat", *options, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=ROOT, env=env
    )
    try:
        async with asyncio.timeout(LIMIT):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def chatted(said: str | bytes, *options: str, **environment: str) -> tuple[int | None, str, str]:
    """Exit code, answers, complaints."""
    async with chatting(*options, **environment) as process:
        out, err = await process.communicate(said if isinstance(said, bytes) else said.encode())
        assert b"Traceback" not in err, err.decode()
        return process.returncode, out.decode(), err.decode().strip()


async def test_it_talks_and_remembers() -> None:
    async with serving() as server, ScriptedUpstream(text("Hel", "lo 漢"), text("Bye")) as upstream:
        await server.register(upstream)
        code, out, err = await chatted("hi é\nand you?\n", "--url", server.url)
        assert (code, err) == (0, "")
        assert out == f"main at {server.url}; an empty line or Ctrl-D ends the chat.\nHello 漢\nBye\n"
        assert upstream.requests[1].body["messages"] == [
            {"role": "user", "content": "hi é"},
            {"role": "assistant", "content": "Hello 漢"},
            {"role": "user", "content": "and you?"},
        ]


async def test_it_streams() -> None:
    go = asyncio.Event()
    async with serving() as server, ScriptedUpstream([*begun("Hel"), go, *text("lo")[2:]]) as upstream:
        await server.register(upstream)
        async with chatting("--url", server.url, "--model", "m") as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(b"hi\n")
            assert await process.stdout.readuntil(b"chat.\n")
            assert await process.stdout.readexactly(3) == b"Hel"
            go.set()
            process.stdin.write_eof()
            assert await process.stdout.read() == b"lo\n"
            assert await process.wait() == 0


async def test_it_passes_over_what_is_no_text() -> None:
    thinking = [Answer(), b": ping\n\n", *begun("a")[1:], b'data: {"choices":[]}\n\n', *text("b")[2:]]
    async with serving() as server, ScriptedUpstream(thinking) as upstream:
        await server.register(upstream)
        assert (await chatted("hi\n", "--url", server.url))[1].endswith("chat.\nab\n")


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_an_address_may_be_written_in_several_ways(suffix: str) -> None:
    async with serving() as server, ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        for url in (server.url, server.url.removeprefix("http://")):
            assert (await chatted("hi\n", "--url", url + suffix))[0] == 0


async def test_a_key_is_sent() -> None:
    async with serving(api_keys="k1", admin_key="a1") as server, ScriptedUpstream(text("a")) as upstream:
        server.headers["x-api-key"] = "a1"
        await server.register(upstream)
        for options, environment in [(["--key", "k1"], {}), ([], {"WEIR_API_KEY": "k1"}), (["--key", " k1\n"], {})]:
            assert (await chatted("hi\n", "--url", server.url, *options, **environment))[0] == 0
        assert await chatted("hi\n", "--url", server.url, "--key", "k2") == (1, "", "this API key is not valid here")
        code, _, err = await chatted("hi\n", "--url", server.url)
        assert (code, "no API key" in err) == (1, True)
        for key in ("k1 漢", "k1\nx"):
            code, out, err = await chatted("hi\n", "--url", server.url, "--key", key)
            assert (code, out, "key" in err and "k1" not in err) == (1, "", True)


TROUBLE: dict[str, tuple[Script, str, str]] = {
    "an error in the stream": (error_in_stream("overloaded", after=1), "la ", "main: overloaded"),
    "a provider that fails": (status(500, "boom"), "", "no provider could answer: main: server 500 (boom)"),
    "a provider that is cut": (begun("Hel"), "Hel", "main: the stream ended without a finish_reason"),
}


@pytest.mark.parametrize("case", TROUBLE)
async def test_trouble_is_told_in_a_sentence(case: str) -> None:
    script, answered, complaint = TROUBLE[case]
    async with serving() as server, ScriptedUpstream(script) as upstream:
        await server.register(upstream)
        code, out, err = await chatted("hi\n", "--url", server.url)
        assert (code, err) == (1, complaint), case
        assert out.endswith(f"chat.\n{answered}\n"), f"{case}: {out!r}"


async def test_an_unknown_model_and_no_provider_at_all_are_told() -> None:
    async with serving() as server:
        assert (await chatted("hi\n", "--url", server.url))[2] == "no provider is registered yet"
        code, _, err = await chatted("hi\n", "--url", server.url, "--model", "gpt-9")
        assert (code, "'gpt-9' is not served here" in err) == (1, True)


async def test_a_wrong_address_is_told() -> None:
    url = refuse().removesuffix("/v1")
    code, _, err = await chatted("hi\n", "--url", url)
    assert (code, url in err, "is Weir running?" in err) == (1, True, True)
    for nonsense in ("ftp://127.0.0.1:1", "http://127.0.0.1:port", "http://[", "http://"):
        code, _, err = await chatted("hi\n", "--url", nonsense)
        assert (code, err.count("\n"), nonsense in err) == (1, 0, True), f"{nonsense}: {err}"


NOT_WEIR: dict[str, Script] = {
    "a page": [Answer(200, {"content-type": "text/html"}), b"<html>"],
    "other JSON": [Answer(200, {"content-type": "application/json"}), b"[1]"],
    "an error page": [Answer(404, {"content-type": "text/html"}), b"<html>"],
    "other error JSON": [Answer(404, {"content-type": "application/json"}), b'{"error": "no"}'],
    "nothing": [Fault.CLOSE],
}


@pytest.mark.parametrize("case", NOT_WEIR)
async def test_who_is_not_weir_is_told_apart(case: str) -> None:
    async with ScriptedUpstream(NOT_WEIR[case]) as other:
        url = other.url.removesuffix("/v1")
        for options in ([], ["--model", "m"]):
            code, _, err = await chatted("hi\n", "--url", url, *options)
            assert (code, err.count("\n"), url in err) == (1, 0, True), f"{case}: {err}"


async def test_an_answer_that_breaks_off_is_not_taken_for_complete() -> None:
    """http.client takes a chunked body that breaks off for one that ends."""
    for script in ([*begun("Hel"), Fault.CLOSE], begun("Hel")):
        async with ScriptedUpstream(script) as weir:
            code, out, err = await chatted("hi\n", "--url", weir.url, "--model", "m")
            assert (code, out.endswith("Hel\n"), err) == (1, True, f"the answer of {weir.url[:-3]} broke off")


async def test_ctrl_c_ends_it_and_the_upstream_call() -> None:
    async with serving() as server, ScriptedUpstream(hang_after(1)) as upstream:
        await server.register(upstream)
        async with chatting("--url", server.url) as process:
            assert process.stdin
            assert process.stdout
            assert process.stderr
            process.stdin.write(b"hi\n")
            await process.stdout.readuntil(b"la ")
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
            assert await process.stderr.read() == b""
        await upstream.disconnected()


async def test_nothing_typed_is_a_chat_of_nothing() -> None:
    async with serving() as server, ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        for nothing in ("", "\n", "   \nhi\n"):
            assert (await chatted(nothing, "--url", server.url))[0] == 0
        assert upstream.requests == []
        code, _, err = await chatted(b"\xff\xfe\n", "--url", server.url)
        assert (code, err.count("\n")) == (1, 0)
