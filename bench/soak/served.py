"""The Weir that a soak is about: everything on, its state in the process; and looks into it from outside and inside."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from bench.processes import memory
from bench.soak.inside import Look

CLIENT, ADMIN = "soak-client", "soak-admin"  # keys
TTL = 60  # seconds after which sessions and durable streams are forgotten: the least that Weir allows
_ENVIRONMENT = {
    "REDIS_URL": "",
    "WEIR_API_KEYS": CLIENT,
    "WEIR_ADMIN_KEY": ADMIN,
    "WEIR_SESSION_TTL": str(TTL),
    "WEIR_STREAM_TTL": str(TTL),
    "WEIR_DRAIN": "0",
    "WEIR_GRACE": "1",
}


@dataclass(frozen=True)
class Reading:
    """What a process holds at one moment."""

    rss: int  # bytes
    fds: int
    inside: Look


class Served:
    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path):
        self.url = url
        self._process = process
        self._log = log

    async def read(self, *, tidy: bool = False) -> Reading:
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGUSR2 if tidy else signal.SIGUSR1)
        inside = Look(**json.loads(await self._process.stdout.readline()))
        return Reading(memory(self._process.pid), len(os.listdir(f"/proc/{self._process.pid}/fd")), inside)

    async def least(self, times: int = 5) -> Reading:
        """As `read`, after tidying up, with the fewest tasks and files of some looks: its beats come and go."""
        looks = [await self.read()]
        for _ in range(times - 1):
            await asyncio.sleep(0.13)
            looks.append(await self.read())
        tidied = await self.read(tidy=True)
        tasks, fds = min(it.inside.tasks for it in looks), min(it.fds for it in looks)
        return replace(tidied, fds=fds, inside=replace(tidied.inside, tasks=tasks))

    def errors(self) -> list[str]:
        """What its log has of errors, and of tasks, files and sessions that nobody looked after."""
        return [line for line in self._log.read_text().splitlines() if " ERROR " in line or "Unclosed" in line]


@asynccontextmanager
async def serving(directory: Path, port: int, config: dict[str, Any]) -> AsyncIterator[Served]:
    path, log = directory / "providers.yaml", directory / "log"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "bench.soak.inside", "serve", "--port", str(port), "--config", str(path)]
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **_ENVIRONMENT}, stdout=asyncio.subprocess.PIPE, stderr=stderr, limit=2**24
        )
    try:
        yield Served(process, f"http://127.0.0.1:{port}", log)
    finally:
        process.terminate()
        await process.wait()
