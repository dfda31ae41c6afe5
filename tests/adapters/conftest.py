from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.vendors.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with aiohttp.ClientSession(trust_env=True) as session:
        here = World(session)
        yield here
        for vendor in here.vendors.values():
            await vendor.__aexit__()
