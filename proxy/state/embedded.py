"""Housekeeping that a Redis server does by itself and the embedded store does not."""

import asyncio

from proxy.state.store import Store

# Type -> the command that measures a key of it, and about how many bytes one unit takes in fakeredis.
_COST = {
    "string": ("strlen", 1),
    "hash": ("hlen", 400),
    "stream": ("xlen", 417),
    "list": ("llen", 100),
    "set": ("scard", 100),
    "zset": ("zcard", 150),
}
_KEY_COST = 500


async def sweep(store: Store, budget: int) -> int:
    """Frees expired keys, then, over `budget` bytes, keys that expire anyway, the soonest first. Bytes left, about.

    What has a time to live is finished business; what has none (registrations, totals) is never dropped.
    """
    client, total, mortal = store.client, 0, []
    async for key in client.scan_iter(count=100):
        lifetime = await client.pttl(key)  # touching an expired key frees it
        if lifetime == -2:
            continue
        command, cost = _COST.get(await client.type(key), ("exists", 0))
        size = _KEY_COST + cost * await getattr(client, command)(key)
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
