"""Which providers the fleet leaves out, and who may probe them: a hash of verdicts, and one short-lived key a probe."""

import contextlib

import msgspec

from proxy.circuit import Verdict
from proxy.errors import StoreAway
from proxy.state.store import Lost, Store

PROBE_LEASE = 130  # seconds: longer than the longest wait for a first token by default


class CircuitStore:
    """`replica` names this process in the keys it holds."""

    def __init__(self, store: Store, replica: str):
        self._store = store
        self._replica = replica
        self._verdicts = store.key("circuits")

    async def load(self) -> dict[str, Verdict]:
        return _readable(await self._store.client.hgetall(self._verdicts))

    async def push(self, verdicts: dict[str, Verdict]) -> None:
        """Adds verdicts that outrank what is there, and lets the fleet know. Raises store.Lost on a race: try again."""
        async with self._store.client.pipeline(transaction=True) as pipe:
            await pipe.watch(self._verdicts)
            known = _readable(await pipe.hgetall(self._verdicts))
            newer = {
                name: msgspec.json.encode(verdict)
                for name, verdict in verdicts.items()
                if name not in known or verdict.outranks(known[name])
            }
            if newer:
                pipe.multi()
                pipe.hset(self._verdicts, mapping=newer)
                self._store.announce(pipe)
                await pipe.execute()

    async def claim(self, provider_id: str, generation: int) -> bool:
        """Whether this replica may probe the provider now. Without Redis every replica decides for itself."""
        key = self._store.key("probe", provider_id, generation)
        claim = self._store.client.set(key, self._replica, nx=True, ex=PROBE_LEASE)
        try:
            return bool(await self._store.wait("a probe", claim))
        except StoreAway:
            return True

    async def release(self, provider_id: str, generation: int) -> None:
        """Gives a probe back that told nothing, so that another request may be it."""
        with contextlib.suppress(StoreAway, Lost):  # the key expires by itself
            await self._store.wait("a probe", self._release(self._store.key("probe", provider_id, generation)))

    async def _release(self, key: str) -> None:
        async with self._store.client.pipeline(transaction=True) as pipe:
            await pipe.watch(key)
            if await pipe.get(key) == self._replica:  # a claim made while Redis was away may be another's by now
                pipe.multi()
                pipe.delete(key)
                await pipe.execute()


def _readable(fields: dict[str, str]) -> dict[str, Verdict]:
    """Verdicts by provider id; one that cannot be read, a newer Weir's perhaps, counts as absent."""
    found = {}
    for name, value in fields.items():
        with contextlib.suppress(msgspec.DecodeError):
            found[name] = msgspec.json.decode(value, type=Verdict)
    return found
