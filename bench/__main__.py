"""Prints the table of bench/README.md: CPU a plain request and a streamed token, through nginx and through Weir."""

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp

from bench.upstream import CHUNKS

ROUNDS, REQUESTS, STREAMS = 5, 1500, 64
UPSTREAM, NGINX, WEIR = 18901, 18902, 18903  # ports
TICK = os.sysconf("SC_CLK_TCK")
PLAIN = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
PACED = {"model": "fake", "stream": True, "messages": [{"role": "user", "content": "paced"}]}
NGINX_CONF = """
worker_processes 1; pid {dir}/pid; error_log {dir}/error.log; daemon off;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};
  uwsgi_temp_path {dir}; scgi_temp_path {dir};
  upstream fake {{ server 127.0.0.1:{upstream}; keepalive 128; }}
  server {{
    listen 127.0.0.1:{port};
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    location / {{ proxy_pass http://fake; }}
  }}
}}
"""


def main() -> None:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        python = [sys.executable, "-m"]
        stack.enter_context(running([*python, "bench.upstream", str(UPSTREAM)]))
        proxies = {}
        if nginx := shutil.which("nginx"):
            conf = directory / "nginx.conf"
            conf.write_text(NGINX_CONF.format(dir=directory, upstream=UPSTREAM, port=NGINX))
            proxies["nginx"] = (stack.enter_context(running([nginx, "-c", str(conf)])), NGINX)
        config = directory / "providers.yaml"
        config.write_text(
            "providers: [{provider_id: fake, provider_type: openai_compatible, model_name: fake, "
            f"base_url: 'http://127.0.0.1:{UPSTREAM}/v1'}}]"
        )
        serve = [*python, "proxy", "serve", "--port", str(WEIR), "--config", str(config)]
        proxies["weir"] = (stack.enter_context(running(serve, WEIR_LOG_LEVEL="WARNING")), WEIR)
        asyncio.run(measure(proxies))


async def measure(proxies: dict[str, tuple[int, int]]) -> None:
    """Runs all rounds, the proxies in turn, and prints medians with their spread."""
    plain: dict[str, list[float]] = {name: [] for name in proxies}
    token: dict[str, list[float]] = {name: [] for name in proxies}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for _, port in proxies.values():
            await until_up(session, port)
            await load(session, port, PLAIN, 100, 8)
        for _ in range(ROUNDS):
            for name, (pid, port) in proxies.items():
                before = cpu(pid)
                await load(session, port, PLAIN, REQUESTS, 8)
                between = cpu(pid)
                await load(session, port, PACED, STREAMS, STREAMS)
                plain[name].append((between - before) / REQUESTS * 1e3)
                token[name].append((cpu(pid) - between) / (STREAMS * CHUNKS) * 1e6)
    show("a plain request, CPU ms", plain, 3)
    show("a streamed token at pace, CPU us", token, 1)


def show(title: str, figures: dict[str, list[float]], digits: int) -> None:
    print(title)
    base = statistics.median(figures.get("nginx", [0.0]))
    for name, values in figures.items():
        median = statistics.median(values)
        ratio = f"  {median / base:.1f} x nginx" if base else ""
        print(f"  {name:6} {median:8.{digits}f}  ({min(values):.{digits}f} to {max(values):.{digits}f}){ratio}")


async def load(
    session: aiohttp.ClientSession, port: int, body: Mapping[str, object], requests: int, at_once: int
) -> None:
    numbers = iter(range(requests))

    async def client() -> None:
        for _ in numbers:
            async with session.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body) as response:
                answer = await response.read()
                assert response.status == 200, answer

    await asyncio.gather(*(client() for _ in range(at_once)))


async def until_up(session: aiohttp.ClientSession, port: int) -> None:
    for _ in range(200):
        try:
            await load(session, port, PLAIN, 1, 1)
            return
        except (aiohttp.ClientError, AssertionError):
            await asyncio.sleep(0.05)
    raise SystemExit(f"nothing answers on port {port}")


def cpu(pid: int) -> float:
    """Seconds of CPU that a process and its children have used."""
    pids = {pid}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := stat(int(entry.name))) and int(fields[1]) in pids:
            pids.add(int(entry.name))
    return sum(sum(map(int, fields[11:13])) for each in pids if (fields := stat(each))) / TICK


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


@contextmanager
def running(command: list[str], **environment: str) -> Iterator[int]:
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"{ROUNDS} rounds in {time.monotonic() - began:.0f} s")
