from collections.abc import AsyncIterator, Iterator

import pytest

from proxy.state.store import Store
from tests.redis_server import RedisServer
from tests.state.stores import Stores, stores_at


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One real server for all tests that do it no harm; each has a prefix of its own."""
    with RedisServer(appendonly="no") as server:
        yield server


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A real server of the test's own, to be stopped, paused or restarted."""
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["embedded", "redis"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    """The same tests run on the embedded store and on a real server."""
    url = request.getfixturevalue("shared_redis").url if request.param == "redis" else None
    async with stores_at(url) as opened:
        yield opened


@pytest.fixture
async def embedded() -> AsyncIterator[Stores]:
    async with stores_at(None) as opened:
        yield opened


@pytest.fixture
def store(stores: Stores) -> Store:
    return stores()
