"""Provider figures, exact across replicas: each process writes its own absolute totals, readers add them up.

Written twice, an absolute total counts once. A process whose lease is gone is folded into the retired totals and
removed in one transaction; what was folded is kept for a day under `gone`, so that a process that was only asleep can
take it off its own totals and go on under a new name.
"""

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from proxy.state.store import Lost, Store
from proxy.tally import LastError, Meter, Tally, is_past, window_of

LEASE_MS = 5_000
GONE_SECONDS = 86_400
PIECE = 100  # tallies that are read in one go: a millisecond


class Figures:
    """What is known about one provider, over all processes."""

    def __init__(self) -> None:
        self.windows = {"minute": Tally(), "hour": Tally(), "total": Tally()}
        self.active = 0
        self.last_error: LastError | None = None

    def add(self, meter: Meter, now: float) -> None:
        self.active += meter.active
        self._blame(meter.last_error)
        for slot, tally in meter.tallies.items():
            if not is_past(slot, now):
                self.windows[window_of(slot)].merge(tally)

    def _blame(self, error: LastError | None) -> None:
        if error is not None and (self.last_error is None or error.at > self.last_error.at):
            self.last_error = error


class StatsStore:
    """The meters of this process, their place in the store, and everyone's sum."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time):
        self._store = store
        self._clock = clock
        self._processes = store.key("processes")
        self._retired = store.key("stats", "retired")
        self.meters: dict[str, Meter] = {}
        self._others: list[dict[str, Meter]] = []  # as they were when Redis last answered
        self._rename()

    def meter(self, provider_id: str) -> Meter:
        if provider_id not in self.meters:
            self.meters[provider_id] = Meter(self._clock)
        return self.meters[provider_id]

    def _rename(self) -> None:
        """Under a new name, of which the store knows nothing, everything is to be written."""
        self.process = secrets.token_hex(8)
        self._active: dict[str, int] = {}  # as the store has them
        self._past: set[str] = set()  # fields that are to go from the store
        for meter in self.meters.values():
            meter.changed.update(meter.tallies)

    def _hash(self, process: str) -> str:
        return self._store.key("stats", process)

    def _lease(self, process: str) -> str:
        return self._store.key("process", process)

    def _gone(self, process: str) -> str:
        return self._store.key("gone", process)

    def idle(self) -> bool:
        """Nothing has changed since the last flush."""
        return not self._past and not any(
            meter.changed or self._active.get(name, 0) != meter.active for name, meter in self.meters.items()
        )

    def forget(self, provider_id: str) -> Coroutine[Any, Any, None]:
        """Forgets what was counted of a provider that is gone: by this process, at once; by the dead, when awaited."""
        if meter := self.meters.pop(provider_id, None):
            self._past.update(f"{provider_id}|{name}" for name in (*meter.tallies, "active", "error"))
        return self._forget_the_dead(provider_id)

    async def _forget_the_dead(self, provider_id: str) -> None:
        client = self._store.client
        names = [name for name in await client.hkeys(self._retired) if name.startswith(f"{provider_id}|")]
        if names:
            await client.hdel(self._retired, *names)

    async def renew(self) -> None:
        """Says that this process lives. One whose lease is gone writes everything that the store does not have."""
        if not await self._store.client.pexpire(self._lease(self.process), LEASE_MS):
            await self.flush()

    async def flush(self) -> None:
        """Writes what has changed, and renews the lease. Raises store.Lost on a race with a folder: try again."""
        async with self._store.client.pipeline(transaction=True) as pipe:
            # Watched, so that neither a folder nor a late copy of an earlier flush comes in between.
            await pipe.watch(self._hash(self.process))
            if not await pipe.exists(self._hash(self.process)):
                process = self.process
                self._come_back(process, await pipe.hgetall(self._gone(process)))
                await pipe.watch(self._hash(self.process))
            fields, active = self._fields(), {name: meter.active for name, meter in self.meters.items()}
            past = self._past - fields.keys()  # another provider may have got the id of one that is gone
            pipe.multi()
            pipe.hset(self._hash(self.process), mapping=fields)
            if past:
                pipe.hdel(self._hash(self.process), *past)
            pipe.sadd(self._processes, self.process)
            pipe.set(self._lease(self.process), "", px=LEASE_MS)
            with self._changes_taken():
                await pipe.execute()
        self._active = active

    @contextlib.contextmanager
    def _changes_taken(self) -> Iterator[None]:
        """What has changed counts as written, unless what follows fails."""
        taken = [(meter, meter.changed) for meter in self.meters.values()]
        past, self._past = self._past, set()
        for meter, _ in taken:
            meter.changed = set()
        try:
            yield
        except BaseException:
            for meter, names in taken:
                meter.changed |= names & meter.tallies.keys()
            self._past |= past
            raise

    def _fields(self) -> dict[str, bytes]:
        fields = {"born": b"1"}
        for provider_id, meter in self.meters.items():
            self._past.update(f"{provider_id}|{slot}" for slot in meter.forget_the_past())
            fields |= {f"{provider_id}|{slot}": msgspec.json.encode(meter.tallies[slot]) for slot in meter.changed}
            fields[f"{provider_id}|active"] = str(meter.active).encode()
            fields[f"{provider_id}|error"] = msgspec.json.encode(meter.last_error)
        return fields

    def _come_back(self, process: str, gone: Mapping[str, str]) -> None:
        """The store lost `process`, or took it for dead: what was folded is no longer this process's own to report."""
        if process != self.process:
            return  # noticed meanwhile
        for provider_id, meter in read_meters(gone).items():
            mine = self.meters.get(provider_id)
            if mine is None or f"{provider_id}|total" in self._past:
                continue  # it was forgotten meanwhile
            for slot, tally in meter.tallies.items():
                mine.tallies.setdefault(slot, Tally()).merge(tally, sign=-1)
        self._rename()

    async def read(self) -> None:
        """Fetches everyone else's figures, and takes them."""
        await self.take(await self.fetch())

    async def fetch(self) -> list[dict[str, str]]:
        """Everyone else's figures, for `take`."""
        found: list[dict[str, str]]
        client, process = self._store.client, self.process
        others = set(await client.smembers(self._processes)) - {process, self.process}
        async with client.pipeline(transaction=True) as pipe:
            for key in (self._gone(process), self._retired, *map(self._hash, sorted(others))):
                pipe.hgetall(key)
            gone, *found = await pipe.execute()
        if gone:
            self._come_back(process, gone)
        return found

    async def take(self, found: Iterable[dict[str, str]]) -> None:
        """Many processes' figures of many providers are a second's work: streams go first."""
        others = []
        for fields in found:
            meters: dict[str, Meter] = {}
            names = list(fields)
            for start in range(0, len(names), PIECE):
                meters = read_meters({name: fields[name] for name in names[start : start + PIECE]}, meters)
                await asyncio.sleep(0)
            others.append(meters)
        self._others = others

    async def total(self) -> dict[str, Figures]:
        """Everyone's figures, as last read, and this process's own, as they are now. Streams go first here, too."""
        found: dict[str, Figures] = {}
        for meters in (*self._others, self.meters):
            for provider_id, meter in list(meters.items()):
                found.setdefault(provider_id, Figures()).add(meter, self._clock())
                await asyncio.sleep(0)
        return found

    async def dead(self) -> list[str]:
        """The processes whose lease is gone, this one left aside."""
        client = self._store.client
        others = sorted(set(await client.smembers(self._processes)) - {self.process})
        leases = await client.mget(map(self._lease, others)) if others else ()
        return [process for process, lease in zip(others, leases, strict=True) if lease is None]

    async def leave(self) -> None:
        """Writes the last figures and folds them at once, rather than after the lease."""
        for meter in self.meters.values():
            meter.changed.update(meter.tallies)  # a flush that was broken off may still hold some back
        await self.flush()
        await self._store.client.delete(self._lease(self.process))
        await self.fold(self.process)

    async def fold(self, process: str) -> None:
        """Adds what a dead process left to the retired totals, once, whoever else tries to."""
        dead = self._hash(process)
        async with self._store.client.pipeline(transaction=True) as pipe:
            await pipe.watch(self._lease(process), dead, self._retired)
            if await pipe.exists(self._lease(process)):
                return  # it woke up
            left = await pipe.hgetall(dead)
            fields, old = _folded(read_meters(await pipe.hgetall(self._retired)), read_meters(left), self._clock())
            pipe.multi()
            if fields:
                pipe.hset(self._retired, mapping=fields)
            if old:
                pipe.hdel(self._retired, *old)
            if left:
                pipe.rename(dead, self._gone(process))
                pipe.expire(self._gone(process), GONE_SECONDS)
            pipe.srem(self._processes, process)
            with contextlib.suppress(Lost):  # another replica folds it, or it woke up
                await pipe.execute()


def read_meters(fields: Mapping[str, str], known: Mapping[str, Meter] = MappingProxyType({})) -> dict[str, Meter]:
    """Provider id -> what one process measured, from its hash; added to what is `known` of it."""
    meters: dict[str, Meter] = defaultdict(lambda: Meter(time.time), known)
    for name, value in fields.items():
        provider_id, bar, field = name.partition("|")
        if not bar:
            continue
        meter = meters[provider_id]
        if field == "active":
            meter.active = int(value)
        elif field == "error":
            meter.last_error = msgspec.json.decode(value, type=LastError | None)
        else:
            meter.tallies[field] = msgspec.json.decode(value, type=Tally)
    return meters


def _folded(retired: dict[str, Meter], dead: dict[str, Meter], now: float) -> tuple[dict[str, bytes], Iterable[str]]:
    """The retired fields with a dead process's added, and the names of those that have left their window."""
    fields = {}
    for provider_id, meter in dead.items():
        kept = retired[provider_id]
        for slot, tally in meter.tallies.items():
            kept.tallies.setdefault(slot, Tally()).merge(tally)
            if not is_past(slot, now):
                fields[f"{provider_id}|{slot}"] = msgspec.json.encode(kept.tallies[slot])
        newest = max((m.last_error for m in (kept, meter) if m.last_error), key=lambda e: e.at, default=None)
        fields[f"{provider_id}|error"] = msgspec.json.encode(newest)
    old = [f"{name}|{slot}" for name, meter in retired.items() for slot in meter.tallies if is_past(slot, now)]
    return fields, old
