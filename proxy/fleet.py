"""Keeps this replica in step with the others: what they registered, what they left out, what everyone counted."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Coroutine
from typing import Any

import msgspec
from pydantic import ValidationError

from proxy.circuit import Verdict
from proxy.errors import ConfigError, StoreAway
from proxy.pipeline.routing import Router
from proxy.provider import ProviderConfig, mistakes
from proxy.state.circuits import CircuitStore
from proxy.state.providers import ProviderStore, Stored
from proxy.state.sessions import SessionStore
from proxy.state.stats import StatsStore
from proxy.state.store import Lost, Store
from proxy.tasks import end, keep
from proxy.upstream import Upstream

log = logging.getLogger(__name__)

BEAT = 0.2  # seconds: how old anything that is shared may be
SLOW_BEAT = 1.0  # seconds between renewals of the lease, and looks for dead processes
FORGOTTEN = 10.0  # seconds after its removal a provider's figures go: all have noticed by then


class Fleet:
    """One replica's part in the fleet. `file`: the providers of providers.yaml, which win over registered ones."""

    def __init__(self, store: Store, router: Router, sessions: SessionStore):
        self.replica = secrets.token_hex(6)  # this one's name, for as long as it runs
        self.store = store
        self.router = router
        self.stats = StatsStore(store)
        self.sessions = sessions
        self.providers = ProviderStore(store)
        self.circuits = CircuitStore(store, self.stats.process)
        self.file: dict[str, ProviderConfig] = {}
        self._stored: dict[str, str] = {}
        self._gone: dict[str, float] = {}  # registrations that were removed, and when
        self._edits = 0  # of `_stored`, by this replica's own clients
        self._version: str | None = None
        self._age: str | None = None  # of the registrations that this replica has seen
        self._task: asyncio.Task[None] | None = None
        self._last_slow = -SLOW_BEAT
        self._said: dict[str, str] = {}  # of each provider's trouble, and under "" of the fleet's: not to say it twice
        self._changing: set[asyncio.Task[None]] = set()
        self._preparing: set[asyncio.Task[None]] = set()

    async def join(self, file: dict[str, ProviderConfig]) -> None:
        """Takes the file's providers into service and begins to beat. Redis may be away. Raises ConfigError."""
        await self.use_file(file)
        self.router.complete = False
        await self._try_beat()
        self._task = asyncio.create_task(self._run(), name="fleet")

    async def leave(self) -> None:
        """Stops beating, and leaves the figures to the others."""
        await end(*([self._task] if self._task else []), *self._preparing)
        with contextlib.suppress(StoreAway, Lost):
            await self.store.wait("leaving", self.stats.leave())
        await asyncio.gather(*self._changing)

    async def use_file(self, file: dict[str, ProviderConfig]) -> None:
        """Replaces the file's providers. Raises ConfigError, with everything as it was, if one cannot be used."""
        for config in file.values():
            self.router.build(config, managed=False)
        self.file = file
        await self._apply()

    async def registered(self, provider_id: str) -> str | None:
        """A registration as it is now: another replica may have changed it a moment ago. Raises StoreAway."""
        return await self.store.wait("changing a provider", self.providers.get(provider_id))

    async def register(self, upstream: Upstream, instead_of: str | None = None) -> None:
        """Stores a registration for the whole fleet, and serves it here.

        Raises StoreAway; store.Lost where it is no longer `instead_of` that is registered.
        """
        config = msgspec.json.encode(upstream.config.private()).decode()
        await self.store.wait("registering a provider", self.providers.save(upstream.id, config, instead_of))
        self._edits += 1
        self._stored[upstream.id] = config
        await self._change(self._put(upstream))

    async def unregister(self, provider_id: str) -> None:
        """Raises StoreAway."""
        await self.store.wait("removing a provider", self.providers.delete(provider_id))
        self._edits += 1
        self._stored.pop(provider_id, None)
        self._gone[provider_id] = asyncio.get_running_loop().time()
        await self._change(self.router.remove(provider_id))

    def _put(self, upstream: Upstream) -> Coroutine[Any, Any, None]:
        """Takes it into service; from then on it counts into this process's figures."""
        upstream.meter = self.stats.meter(upstream.id)
        return self.router.put(upstream)

    async def _run(self) -> None:
        while True:
            # What is embedded nobody else reads or changes: there is no hurry, and a write costs 1 ms.
            await asyncio.sleep(SLOW_BEAT if self.store.embedded else BEAT)
            await self._try_beat()

    async def _try_beat(self) -> None:
        try:
            await self._beat()
        except (StoreAway, Lost):
            return  # the next beat tries again
        except Exception as error:
            self._say("", f"keeping in step with the fleet failed: {error!r}", error)
            return
        self.store.back()
        self._said.pop("", None)

    async def _beat(self) -> None:
        attempt, now = self.store.attempt, asyncio.get_running_loop().time()
        slow = now - self._last_slow >= SLOW_BEAT
        if not self.stats.idle():
            await attempt("statistics", self.stats.flush())
        elif slow:
            await attempt("statistics", self.stats.renew())
        if ours := {up.id: up.circuit.verdict for up in self.router if up.circuit.changed}:
            await attempt("circuits", self.circuits.push(ours))
            for up in self.router:
                if ours.get(up.id) is up.circuit.verdict:
                    up.circuit.changed = False
        await self.sessions.settle()
        version = await attempt("providers", self.providers.version())
        if version is None or version != self._version:
            edits = self._edits
            stored, verdicts = await attempt("providers", self._look())
            if version is None or stored.age is None or self._age not in (None, stored.age, stored.before):
                # Where somebody has begun anew before us, he knew less than we do.
                if self._age is not None:
                    log.warning("Redis has lost its memory: registering again what this replica knows")
                for up in self.router:
                    up.circuit.changed = up.circuit.generation > 0
                await attempt("providers", self.providers.restore(self._stored, self._age))
                version = await attempt("providers", self.providers.version())
                stored, verdicts = await attempt("providers", self._look())
            if edits == self._edits:  # otherwise this is older than what was registered here meanwhile
                await self._take(stored.configs, verdicts)
                self._version, self._age = version, stored.age
        if slow:
            for process in await attempt("statistics", self.stats.dead()):
                await attempt("statistics", self.stats.fold(process))
            if version == self._version:  # otherwise somebody may have come back, and we do not know
                await self._forget_the_gone(now)
            self._last_slow = now

    async def _forget_the_gone(self, now: float) -> None:
        """More than once, for the figures of a replica that has died meanwhile come up again when it is folded."""
        for provider_id in [name for name, since in self._gone.items() if now - since >= FORGOTTEN]:
            known = provider_id in self._stored or provider_id in self.file or self.router.get(provider_id)
            if not known:
                await self.store.attempt("statistics", self.stats.forget(provider_id))
            if known or now - self._gone[provider_id] >= 2 * FORGOTTEN:
                del self._gone[provider_id]

    async def _look(self) -> tuple[Stored, dict[str, Verdict]]:
        return await self.providers.load(), await self.circuits.load()

    async def _take(self, stored: dict[str, str], verdicts: dict[str, Verdict]) -> None:
        now = asyncio.get_running_loop().time()
        self._gone |= dict.fromkeys(self._stored.keys() - stored.keys(), now)
        self._stored = stored
        self.router.complete = True
        await self._apply()
        for provider_id, verdict in verdicts.items():
            if upstream := self.router.get(provider_id):
                upstream.circuit.learn(verdict)

    async def _apply(self) -> None:
        """Makes the router serve the file's providers and the registered ones, touching only what has changed."""
        wanted = {name: (config, False) for name, config in self.file.items()}
        for name in self._stored.keys() - self.file.keys():
            try:
                wanted[name] = (ProviderConfig.model_validate_json(self._stored[name]), True)
            except ValidationError as error:  # registered by a newer Weir, say
                why = "; ".join(f"{'.'.join(map(str, where))}: {what}" for where, what in mistakes(error))
                self._say(name, f"provider {name} is registered in a form this replica cannot read: {why}")
        changes = [self.router.remove(upstream.id) for upstream in self.router if upstream.id not in wanted]
        for name, (config, managed) in wanted.items():
            current = self.router.get(name)
            if current is None or current.config != config or current.managed != managed:
                try:
                    upstream = self.router.build(config, managed=managed)
                except ConfigError as error:  # a type whose plugin this replica lacks
                    self._say(name, f"provider {name} cannot be served here: {error}")
                    continue
                if current is not None:
                    current.circuit.forgive(current.clock())
                changes.append(self._put(upstream))
                if self._task is not None:  # at the start, who opened us prepares them all
                    keep(self._preparing, self._prepare(upstream))
        await self._change(*changes)

    async def _change(self, *changes: Coroutine[Any, Any, None]) -> None:
        """Changes the router, at once and in this order. Adapters that leave it close in their own time."""
        for change in changes:
            keep(self._changing, change)
        await asyncio.sleep(0)

    async def _prepare(self, upstream: Upstream) -> None:
        """Spares the first request a slow import; should it fail, that request is told why."""
        try:
            await upstream.prepare()
        except Exception as error:
            why = error.message if isinstance(error, ConfigError) else upstream.traceback_of(error)
            self._say(upstream.id, f"provider {upstream.id} cannot be made ready: {why}")

    def _say(self, about: str, message: str, error: Exception | None = None) -> None:
        if self._said.get(about) != message:
            log.error("%s", message, exc_info=error)
        self._said[about] = message
