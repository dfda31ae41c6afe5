"""Many streams at once: none may be lost, each token must come soon and cost what one costs, and memory stay small."""

import asyncio
import re
import statistics

from bench.load import Ask, Seen, load
from bench.processes import cpu, memory
from bench.proxies import Proxy, fresh
from bench.table import Figures
from bench.tokens import TOKENS, ask, until_up

MANY, SLOWLY, RAMP = 1000, 125, 4.0  # streams, milliseconds between their tokens, seconds within which they begin
LATE = "1,000 streams of 8 tokens a second: a token's way, ms"
LATE_P99 = f"{LATE}, p99"
MEMORY = "1,000 streams: memory of one, KB"
COST = "a token, {} at once, CPU us"
AT_ONCE = {1: (5, 10), 8: (5, 4), 64: (20, 2), 256: (50, 1), 1000: (125, 1)}  # streams -> pace in ms, times
_STAMP = re.compile(rb"@(\d+)")


async def many(proxies: dict[str, Proxy], rounds: int, figures: Figures) -> None:
    way = ask(pace=SLOWLY, tokens=80, stamped=True)
    with fresh() as weir:  # memory that a process has once had it does not give back
        await until_up("weir", weir)
        fresh_ones = {**proxies, "weir": weir}
        for name in ("direct", "nginx", "floor", "thin", "weir"):
            if name in proxies:
                await _many(name, fresh_ones[name], way, figures)


async def _many(name: str, proxy: Proxy, way: Ask, figures: Figures) -> None:
    before, used = memory(proxy.pid), cpu(proxy.pid)
    running = asyncio.create_task(load(proxy.port, way, at_once=MANY, ramp=RAMP, pieces=True))
    await asyncio.sleep(RAMP + 2)
    at_full = memory(proxy.pid)
    seen = await running
    delays = sorted(late(seen))
    if len(delays) != MANY * way.tokens:
        raise RuntimeError(f"{name}: {MANY * way.tokens - len(delays)} tokens were lost")
    figures.add(f"{LATE}, p50", name, statistics.median(delays) * 1e3)
    figures.add(LATE_P99, name, delays[len(delays) * 99 // 100] * 1e3)
    figures.add(MEMORY, name, (at_full - before) / MANY / 1024)
    figures.add("1,000 streams: a token, CPU us", name, (cpu(proxy.pid) - used) / len(delays) * 1e6)


def late(seen: Seen) -> list[float]:
    """Seconds that each token was on its way."""
    assert seen.pieces is not None
    return [when - int(sent) / 1e6 for when, piece in seen.pieces for sent in _STAMP.findall(piece)]


async def flat(proxies: dict[str, Proxy], rounds: int, figures: Figures) -> None:
    """The same streams, a few or many at once; what an idle process costs is taken off."""
    for name in ("nginx", "weir"):
        if name in proxies:
            await _flat(name, proxies[name], min(rounds, 3), figures)


async def _flat(name: str, proxy: Proxy, rounds: int, figures: Figures) -> None:
    before = cpu(proxy.pid)
    await asyncio.sleep(3)
    idle = (cpu(proxy.pid) - before) / 3
    loop = asyncio.get_running_loop()
    for at_once, (pace, times) in AT_ONCE.items():
        for _ in range(rounds):
            way, before, began = ask(pace=pace), cpu(proxy.pid), loop.time()
            await load(proxy.port, way, at_once=at_once, times=times, ramp=pace / 1000)
            spent = cpu(proxy.pid) - before - idle * (loop.time() - began)
            figures.add(COST.format(at_once), name, spent / (at_once * times * TOKENS) * 1e6)
