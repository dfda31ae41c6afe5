"""Stores as replicas see them: several on one engine, which is fakeredis in this process or a real server."""

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import fakeredis

from proxy.state.store import Store, open_store

_numbers = itertools.count()


class Stores:
    """`stores()` opens one more connection to the same data, as another replica has. `url` is None if embedded."""

    def __init__(self, url: str | None):
        self.url = url
        self.prefix = f"weir-{os.getpid()}-{next(_numbers)}:"
        self._server = fakeredis.FakeServer()
        self._opened: list[Store] = []

    def __call__(self) -> Store:
        if self.url is not None:
            store = open_store(self.url, self.prefix)
        else:
            client = fakeredis.FakeAsyncRedis(server=self._server, decode_responses=True)
            store = Store(client, embedded=True, prefix=self.prefix)
        self._opened.append(store)
        return store

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


@asynccontextmanager
async def stores_at(url: str | None) -> AsyncIterator[Stores]:
    stores = Stores(url)
    try:
        yield stores
    finally:
        await stores.close()
