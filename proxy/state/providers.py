"""Providers registered over REST: a hash of id -> configuration, and the version that tells replicas to look again."""

import secrets
from collections.abc import Mapping
from typing import NamedTuple

from proxy.state.store import Lost, Store

_AGE = "~age"  # in the hash, beside the providers; no provider's id can begin so


class Stored(NamedTuple):
    """Provider id -> configuration, since Redis last lost its memory. Who began that `age` knew the one `before`."""

    configs: dict[str, str]
    age: str | None
    before: str


class ProviderStore:
    """Configurations are JSON, secrets included. `version` changes with every change of providers and circuits:
    replicas look at it five times a second, and it cannot be missed the way a published message can.
    """

    def __init__(self, store: Store):
        self._store = store
        self._providers = store.key("providers")

    async def version(self) -> str | None:
        """None in a store that has never held anything, or has lost it."""
        found: str | None = await self._store.client.get(self._store.key("version"))
        return found

    async def load(self) -> Stored:
        found: dict[str, str] = await self._store.client.hgetall(self._providers)
        age, _, before = found.pop(_AGE, "").partition(":")
        return Stored(found, age or None, before)

    async def get(self, provider_id: str) -> str | None:
        found: str | None = await self._store.client.hget(self._providers, provider_id)
        return found

    async def save(self, provider_id: str, config: str, instead_of: str | None = None) -> None:
        """Raises store.Lost where another configuration is there by now than the one that this is to replace."""
        async with self._store.client.pipeline(transaction=True) as pipe:
            if instead_of is not None:
                await pipe.watch(self._providers)
                if await pipe.hget(self._providers, provider_id) != instead_of:
                    raise Lost
                pipe.multi()
            pipe.hset(self._providers, provider_id, config)
            self._store.announce(pipe)
            await pipe.execute()

    async def restore(self, configs: Mapping[str, str], age: str | None = None) -> None:
        """Puts back what a store has lost since that `age`, but nothing over what was registered since."""
        async with self._store.client.pipeline(transaction=True) as pipe:
            for provider_id, config in configs.items():
                pipe.hsetnx(self._providers, provider_id, config)
            pipe.hsetnx(self._providers, _AGE, f"{secrets.token_hex(8)}:{age or ''}")
            self._store.announce(pipe, begin=True)
            await pipe.execute()

    async def delete(self, provider_id: str) -> None:
        """Forgets the provider, and that it was left out: another one may get its id."""
        async with self._store.client.pipeline(transaction=True) as pipe:
            pipe.hdel(self._providers, provider_id)
            pipe.hdel(self._store.key("circuits"), provider_id)
            self._store.announce(pipe)
            await pipe.execute()
