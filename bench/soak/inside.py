"""Weir, and a look into its process: upon SIGUSR1 it says on stdout what is in it, upon SIGUSR2 after tidying up first.

`python -m bench.soak.inside serve --port PORT ...`: what follows is for `python -m proxy`.
"""

import asyncio
import gc
import json
import signal
import sys
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from proxy.__main__ import main
from proxy.state.embedded import sweep
from proxy.tasks import keep
from proxy.weir import Weir


@dataclass(frozen=True)
class Look:
    """`store`: bytes, as Weir itself counts them for its budget; `keys`: how many of each kind are in it.

    `objects`: those that Python's collector knows, that is, all that can hold others; by type. Only after tidying up.
    """

    tasks: int
    threads: int
    store: int
    keys: dict[str, int]
    objects: dict[str, int] = field(default_factory=dict)


async def look(tidy: bool) -> Look:
    tasks = len(asyncio.all_tasks()) - 1  # this one
    gc.unfreeze()  # the server has put all that was there at its start out of the collector's sight
    weir = next(it for it in gc.get_objects() if issubclass(type(it), Weir))
    size = await sweep(weir.store, budget=sys.maxsize)
    keys = Counter([key.split(":")[1] async for key in weir.store.client.scan_iter(count=1000)])
    objects: Counter[str] = Counter()
    if tidy:
        gc.collect()
        objects.update(f"{type(it).__module__}.{type(it).__qualname__}" for it in gc.get_objects())
    return Look(tasks, threading.active_count(), size, dict(keys), dict(objects))


async def tell(tidy: bool) -> None:
    print(json.dumps(asdict(await look(tidy))), flush=True)


def run() -> int:
    looks: set[asyncio.Task[None]] = set()

    def asked(tidy: bool, *_: Any) -> None:
        keep(looks, tell(tidy))

    signal.signal(signal.SIGUSR1, partial(asked, False))
    signal.signal(signal.SIGUSR2, partial(asked, True))
    return main()


if __name__ == "__main__":
    sys.exit(run())
