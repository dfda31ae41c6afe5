"""Room for what comes next in a session that holds too much: its oldest turns go, but not what they were told to do."""

from typing import NamedTuple

from proxy.state.session_log import bytes_of, what_was_told
from proxy.state.store import Store

MOST_BYTES = 16 * 1024**2  # of one session: Redis hands them over well within the store's patience
MOST_ENTRIES = 2000  # of one session: a thousand turns with their answers

_LOW_BYTES = MOST_BYTES * 15 // 16  # so that not every turn of a full session has to make room
_LOW_ENTRIES = MOST_ENTRIES * 15 // 16
_PIECE = 4  # entries that are looked at in one go, for each may have megabytes


class Keys(NamedTuple):
    """Where a session is kept.

    `log`: a stream, see `session_log`. `size`: its `bytes`, and the `turns` it ever had; a sorted set, because ZADD XX
    INCR, unlike HINCRBY, does not bring back what was deleted. `told`: system messages of turns that were dropped.
    `listing`: the owner's sessions, by the time of their last use.
    """

    log: str
    size: str
    told: str
    listing: str


class Held(NamedTuple):
    """What a session holds."""

    bytes: float
    entries: int

    @property
    def is_full(self) -> bool:
        return self.bytes > MOST_BYTES or self.entries > MOST_ENTRIES


async def drop_oldest(store: Store, keys: Keys, ttl: int) -> bool:
    """Drops a few turns; True if that was not enough. Raises store.Lost if the session changed meanwhile."""
    async with store.client.pipeline(transaction=True) as pipe:
        await pipe.watch(keys.log)
        size, entries = await pipe.zscore(keys.size, "bytes") or 0.0, await pipe.xlen(keys.log)
        oldest = await pipe.xrange(keys.log, count=_PIECE + 1)
        if entries <= len(oldest):  # so few are not too many: they were miscounted
            pipe.multi()
            pipe.zadd(keys.size, {"bytes": bytes_of(oldest)}, xx=True)
            await pipe.execute()
            return False
        gone = 0
        while gone < _PIECE and (size > _LOW_BYTES or entries - gone > _LOW_ENTRIES):
            size -= bytes_of(oldest[gone : gone + 1])
            gone += 1
        if not gone:
            return False
        told = what_was_told(oldest[:gone], await pipe.get(keys.told))
        pipe.multi()
        pipe.xtrim(keys.log, minid=oldest[gone][0], approximate=False)
        pipe.zadd(keys.size, {"bytes": size}, xx=True)
        pipe.set(keys.told, told, ex=ttl)
        await pipe.execute()
        return gone == _PIECE
