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
LATE = "1,000 streams of 8 tokens a second: ms from the upstream to the client"
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
    figures.add(f"{LATE}, p99", name, delays[len(delays) * 99 // 100] * 1e3)
    figures.add("1,000 streams: KB of memory a stream", name, (at_full - before) / MANY / 1024)
    figures.add("1,000 streams: CPU us a token", name, (cpu(proxy.pid) - used) / len(delays) * 1e6)


def late(seen: Seen) -> list[float]:
    """Seconds that each token was on its way."""
    assert seen.pieces is not None
    return [when - int(sent) / 1e6 for when, piece in seen.pieces for sent in _STAMP.findall(piece)]


async def flat(proxies: dict[str, Proxy], rounds: int, figures: Figures) -> None:
    """The same streams, a few or many at once; what an idle process costs is taken off."""
    weir = proxies["weir"]
    before = cpu(weir.pid)
    await asyncio.sleep(3)
    idle = (cpu(weir.pid) - before) / 3
    loop = asyncio.get_running_loop()
    for at_once, pace, times in ((1, 5, 10), (8, 5, 4), (64, 20, 2), (256, 50, 1), (1000, 125, 1)):
        for _ in range(min(rounds, 3)):
            way, before, began = ask(pace=pace), cpu(weir.pid), loop.time()
            await load(weir.port, way, at_once=at_once, times=times, ramp=pace / 1000)
            spent = cpu(weir.pid) - before - idle * (loop.time() - began)
            figures.add(
                "a token, by streams at once, CPU us", f"{at_once} streams", spent / (at_once * times * TOKENS) * 1e6
            )
