from collections.abc import AsyncIterator

import pytest

from tests.server import Server, serving


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Weir without keys, providers or patience."""
    async with serving(keep_alive=0.05, status_wait=5, stall=0.5) as running:
        yield running
