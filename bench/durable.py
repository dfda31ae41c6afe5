"""Prints what a durable token costs beside the same one that is not: `make bench-durable`. Needs redis-server.

The same paced load goes through one Weir in turns, durable and not, from a fake upstream; CPU is read from /proc.
"""

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio

from bench.__main__ import PACED, cpu, load, running, until_up
from bench.upstream import CHUNKS

ROUNDS, STREAMS = 5, 64
UPSTREAM, WEIR, REDIS = 18911, 18912, 18913  # ports
DURABLE = {**PACED, "weir": {"durable": True}}
AT_ONCE = {"messages": [{"role": "user", "content": "hi"}]}  # no pace: all of the answer at once


def main() -> None:
    server = shutil.which("redis-server")
    if server is None:
        raise SystemExit("bench-durable needs redis-server: apt install redis-server")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        python = [sys.executable, "-m"]
        stack.enter_context(running([*python, "bench.upstream", str(UPSTREAM)]))
        kept = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--dir", str(directory)]
        store = stack.enter_context(running([server, "--port", str(REDIS), "--bind", "127.0.0.1", *kept]))
        config = directory / "providers.yaml"
        config.write_text(
            "providers: [{provider_id: fake, provider_type: openai_compatible, model_name: fake, "
            f"base_url: 'http://127.0.0.1:{UPSTREAM}/v1'}}]"
        )
        serve = [*python, "proxy", "serve", "--port", str(WEIR), "--config", str(config)]
        url = f"redis://127.0.0.1:{REDIS}"
        weir = stack.enter_context(running(serve, WEIR_LOG_LEVEL="WARNING", REDIS_URL=url))
        asyncio.run(measure(weir, store, url))


async def measure(weir: int, store: int, url: str) -> None:
    """Runs all rounds, with and without, and prints medians with their spread."""
    token: dict[str, list[float]] = {"not durable": [], "durable": [], "durable, in Redis": []}
    first: dict[str, list[float]] = {"not durable": [], "durable": []}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await until_up(session, WEIR)
        await load(session, WEIR, DURABLE, STREAMS, STREAMS)
        for _ in range(ROUNDS):
            for name, body in (("not durable", PACED), ("durable", DURABLE)):
                before, in_redis = cpu(weir), cpu(store)
                await load(session, WEIR, body, STREAMS, STREAMS)
                token[name].append(each(cpu(weir) - before))
                if name == "durable":
                    token["durable, in Redis"].append(each(cpu(store) - in_redis))
                first[name] += [await first_token(session, {**body, **AT_ONCE}) for _ in range(50)]
    show("a streamed token at pace, CPU us", token, "not durable")
    show("first token, ms after the request", first, "not durable")
    await weigh(redis.asyncio.Redis.from_url(url))


def each(seconds: float) -> float:
    return seconds / (STREAMS * CHUNKS) * 1e6


async def first_token(session: aiohttp.ClientSession, body: dict[str, Any]) -> float:
    began = time.perf_counter()
    async with session.post(f"http://127.0.0.1:{WEIR}/v1/chat/completions", json=body) as response:
        await response.content.readany()
        took = time.perf_counter() - began
        await response.read()
        return took * 1e3


async def weigh(client: Any) -> None:
    """What the logs take in Redis; a lonely stream is all there is to batch, so that each token is an entry."""
    sizes = [await client.memory_usage(key, samples=0) async for key in client.scan_iter(match="weir:log:*")]
    used = max(sizes)  # those of the first token's measure are smaller
    print(f"memory of a log of {CHUNKS} tokens: {used:.0f} bytes")
    await client.delete("long")
    await client.xadd("long", {"opening": "", "about": ""}, id="1-0")
    spent = []
    for tokens in range(1, 4001):
        await client.xadd("long", {"fake": b'[" token"]'}, id=f"1-{tokens}")
        if tokens in (2000, 4000):
            spent.append(await client.memory_usage("long", samples=0))
    print(f"each further token, an entry by itself: {(spent[1] - spent[0]) / 2000:.1f} bytes")
    await client.aclose()


def show(title: str, figures: dict[str, list[float]], base: str) -> None:
    print(title)
    least = statistics.median(figures[base])
    for name, values in figures.items():
        median = statistics.median(values)
        print(f"  {name:18} {median:8.1f}  ({min(values):.1f} to {max(values):.1f})  {median / least:.2f} x")


if __name__ == "__main__":
    main()
