"""What a durable stream's log takes in Redis, asked of Redis itself."""

import subprocess

from bench.load import load
from bench.proxies import Proxy
from bench.table import Figures
from bench.tokens import DURABLE, TOKENS

TITLE = "a durable stream's log in Redis, bytes"
LONG = "bench:long"  # a log made by hand: each token an entry by itself, as where a stream is alone


async def log(proxies: dict[str, Proxy], rounds: int, figures: Figures) -> None:
    if "redis" not in proxies:
        return
    port = proxies["redis"].port
    await load(proxies["weir on redis"].port, DURABLE, at_once=1)
    logs = [key for key in redis(port, "KEYS weir:log:*").split() if key]
    figures.add(TITLE, f"{TOKENS} tokens", max(used(port, key) for key in logs))
    redis(port, f"DEL {LONG}", f'XADD {LONG} 1-0 opening "" about ""')
    sizes = []
    for first in (1, 2001):
        redis(port, *(f"""XADD {LONG} 1-{number} fake '[" token"]'""" for number in range(first, first + 2000)))
        sizes.append(used(port, LONG))
    redis(port, f"DEL {LONG}")
    figures.add(TITLE, "each further token", (sizes[1] - sizes[0]) / 2000)


def used(port: int, key: str) -> int:
    return int(redis(port, f"MEMORY USAGE {key} SAMPLES 0"))


def redis(port: int, *commands: str) -> str:
    """What Redis says to commands, by its own command line."""
    asked = "\n".join(commands)
    return subprocess.run(
        ["redis-cli", "-p", str(port)], input=asked, capture_output=True, text=True, check=True
    ).stdout
