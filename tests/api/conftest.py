from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from tests.server import Server, serving


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Weir without keys, providers or patience."""
    async with serving(keep_alive=0.05, status_wait=5, stall=0.5) as running:
        yield running


@pytest.fixture
async def guarded() -> AsyncIterator[Server]:
    """Weir with an admin key and two keys of clients."""
    keys = [SecretStr("client-key-1"), SecretStr("client-key-2")]
    async with serving(admin_key=SecretStr("admin-key-1"), api_keys=keys) as running:
        yield running
