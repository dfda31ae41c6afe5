"""Background work: held on to while it runs, and ended for certain."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def end(*tasks: asyncio.Task[None]) -> None:
    """Cancels `tasks` and waits until they are over; what they raised is theirs.

    Once is not enough: on Python 3.11 `asyncio.wait_for` swallows a cancel that meets a result, and fakeredis, whose
    results are always there, waits with it for every reply (https://github.com/python/cpython/issues/86296).
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=0.05)


def keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    """Begins `work`, and holds on to it in `tasks` until it ends: the loop itself holds tasks only weakly."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
