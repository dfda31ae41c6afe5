"""A real Weir in a process of its own, as an operator would run it."""

import asyncio
import contextlib
import inspect
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

ROOT = Path(__file__).parent.parent
PATIENCE = 20.0  # seconds: a bound on what a busy machine may take, never a measurement


class Weir:
    """A started server. `log` collects what it says."""

    def __init__(self, port: int, process: "subprocess.Popen[bytes]", log: Path):
        self.url = f"http://127.0.0.1:{port}"
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def signal(self, sig: signal.Signals) -> None:
        self.process.send_signal(sig)

    async def ended(self) -> int:
        """Its exit status, once it has ended."""
        return await asyncio.to_thread(self.process.wait, PATIENCE)


@asynccontextmanager
async def weir(
    tmp_path: Path, config: str | None = None, *options: str, python: str = sys.executable, **environment: str
) -> AsyncIterator[Weir]:
    """Starts `python -m proxy serve` on a free port with an environment of its own, and ends it afterwards."""
    port, number = free_port(), len(list(tmp_path.iterdir()))
    log, arguments = tmp_path / f"weir-{number}.log", ["--port", str(port), *options]
    if config is not None:
        path = tmp_path / f"providers-{number}.yaml" if not config.endswith(".yaml") else Path(config)
        if not config.endswith(".yaml"):
            path.write_text(config)
        arguments += ["--config", str(path)]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "WEIR_DRAIN": "0", **environment}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [python, "-W", "error", "-m", "proxy", "serve", *arguments],
            stderr=sink,
            cwd=tmp_path,
            env=env,
            start_new_session=True,
        )
    try:
        await until(
            lambda: process.poll() is not None or b": listening on " in log.read_bytes(), "a line that says it listens"
        )
        assert process.poll() is None, f"Weir did not start: {log.read_text()}"
        yield Weir(port, process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers too, which would outlive it
        process.wait()


@asynccontextmanager
async def replicas(tmp_path: Path, redis_url: str, count: int) -> AsyncIterator[list[Weir]]:
    """So many of them on one Redis, each with a folder of its own."""
    async with AsyncExitStack() as stack:
        paths = [tmp_path / f"replica-{number}" for number in range(count)]
        for path in paths:
            path.mkdir()
        starts = (weir(path, REDIS_URL=redis_url) for path in paths)
        yield await asyncio.gather(*(stack.enter_async_context(start) for start in starts))


async def until(holds: Callable[[], Any], what: str, limit: float = PATIENCE) -> Any:
    """What `holds` gives as soon as it is true; another process can only be asked again and again."""
    end = time.monotonic() + limit
    while True:
        result = holds()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < end, f"not within {limit:g} s: {what}"
        await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def call(url: str, body: Mapping[str, Any] | None = None, method: str | None = None) -> tuple[int, Any]:
    """One JSON request: its status, and the JSON it answers."""
    async with aiohttp.ClientSession() as session:
        data = None if body is None else msgspec.json.encode(body)
        async with session.request(method or ("POST" if body is not None else "GET"), url, data=data) as response:
            return response.status, msgspec.json.decode(await response.read())


def chat(text: str = "hi", model: str = "main", **fields: Any) -> dict[str, Any]:
    """The body of a chat completions request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def provider(url: str, provider_id: str = "main", **fields: Any) -> dict[str, Any]:
    """A registration of an OpenAI-wire upstream at `url`."""
    return {
        "provider_id": provider_id,
        "provider_type": "openai_compatible",
        "base_url": url,
        "model_name": "m",
        "api_key": "sk-secret-0123456789",
        **fields,
    }
