"""What a process takes when nobody asks anything, and how soon it serves."""

import asyncio
import time

from bench.processes import cpu, memory
from bench.proxies import Proxy, fresh
from bench.table import Figures
from bench.tokens import first_answer

START = "start to the first served request, s"
MEMORY = "idle memory, MB"
IDLE = 5.0  # seconds


async def rest(proxies: dict[str, Proxy], rounds: int, figures: Figures) -> None:
    """Weir without a translated provider, as it is started by `python -m proxy serve`, its bytecode compiled."""
    for _ in range(rounds):
        began = time.monotonic()
        with fresh(translated=False) as weir:
            await first_answer("weir", weir, look=0.002)
            figures.add(START, "weir", time.monotonic() - began)
            await asyncio.sleep(1)
            figures.add(MEMORY, "weir", memory(weir.pid) / 1e6)
            before = cpu(weir.pid)
            await asyncio.sleep(IDLE)
            figures.add("idle CPU, ms a second", "weir", (cpu(weir.pid) - before) / IDLE * 1e3)
    for name in ("nginx", "floor", "thin", "litellm"):
        if name in proxies:
            figures.add(MEMORY, f"{name} (after its load)", memory(proxies[name].pid) / 1e6)
