from collections.abc import AsyncIterator

import pytest

from proxy.durable import beat
from proxy.state import orphans, store
from tests.durable.replicas import Fleet
from tests.state.conftest import embedded, shared_redis, stores
from tests.state.stores import Stores

__all__ = ["embedded", "shared_redis", "stores"]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas look after their streams all the time; and a busy machine is no Redis that is away."""
    monkeypatch.setattr(store, "PATIENCE", 10.0)
    monkeypatch.setattr(beat, "BEAT", 0.02)
    monkeypatch.setattr(orphans, "CLAIM", 0.05)
    monkeypatch.setattr(orphans, "WATCHED", 0.5)


@pytest.fixture
async def fleet(stores: Stores) -> AsyncIterator[Fleet]:
    """Replicas on the embedded store, and on a real server."""
    async with Fleet(stores) as fleet:
        yield fleet
