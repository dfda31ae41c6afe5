"""Prints the tables of bench/README.md: `make bench`. What is measured, and how, is told there.

`python -m bench [--rounds N] [--only PART,...] [--write FILE]`
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from bench import goals, latency, log, many, rest, tokens
from bench.proxies import Proxy, standing
from bench.table import Figures

Part = Callable[[dict[str, Proxy], int, Figures], Awaitable[None]]
PARTS: dict[str, Part] = {
    "plain": tokens.plain,
    "tokens": tokens.tokens,
    "first": latency.first_token,
    "log": log.log,
    "many": many.many,
    "flat": many.flat,
    "rest": rest.rest,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of: {','.join(PARTS)}")
    parser.add_argument("--write", type=Path, help="a file that gets all figures as JSON")
    given = parser.parse_args()
    began, figures = time.monotonic(), Figures()
    with standing() as proxies:
        uvloop.run(measure(proxies, given.only.split(","), given.rounds, figures))
    goals.show(figures)
    print(f"\n{given.rounds} rounds in {time.monotonic() - began:.0f} s")
    if given.write:
        given.write.write_text(json.dumps(figures.as_json(), indent=1) + "\n")


async def measure(proxies: dict[str, Proxy], parts: list[str], rounds: int, figures: Figures) -> None:
    await asyncio.gather(*(tokens.until_up(name, proxy) for name, proxy in proxies.items() if name != "redis"))
    for part in parts:
        await PARTS[part](proxies, rounds, figures)
        figures.show()


if __name__ == "__main__":
    main()
