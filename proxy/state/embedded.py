"""Housekeeping that a Redis server does by itself and the embedded store does not."""

import asyncio
from typing import Any

from proxy.state.store import Store

# Type -> the command that measures a key of it, and about how many bytes one unit takes in fakeredis.
_COST = {
    "string": ("strlen", 1),
    "hash": ("hlen", 400),
    "list": ("llen", 100),
    "set": ("scard", 100),
    "zset": ("zcard", 150),
}
_KEY_COST = 500
_ENTRY_COST = 417  # of a stream, beside what it holds


async def sweep(store: Store, budget: int) -> int:
    """Frees expired keys, then, over `budget` bytes, keys that expire anyway, the soonest first. Bytes left, about.

    What has a time to live is finished business; what has none (registrations, totals) is never dropped.
    """
    client, total, mortal = store.client, 0, []
    async for key in client.scan_iter(count=100):
        lifetime = await client.pttl(key)  # touching an expired key frees it
        if lifetime == -2:
            continue
        size = _KEY_COST + await _size(client, key)
        total += size
        if lifetime >= 0:
            mortal.append((lifetime, key, size))
        await asyncio.sleep(0)  # streams go first
    for _, key, size in sorted(mortal):
        if total <= budget:
            break
        await client.delete(key)
        total -= size
    return total


async def _size(client: Any, key: str) -> int:
    kind = await client.type(key)
    if kind == "stream":  # the newest entries stand for all: those of one stream are alike, those of two are not
        newest = await client.xrevrange(key, count=4)
        weight = sum(len(value) for _, fields in newest for value in fields.values()) // max(1, len(newest))
        return int(await client.xlen(key)) * (_ENTRY_COST + weight)
    command, cost = _COST.get(kind, ("exists", 0))
    return int(cost * await getattr(client, command)(key))
