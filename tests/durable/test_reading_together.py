"""Several readers of one stream on one replica, who come at the same moment."""

import asyncio

import pytest

from proxy.durable.feeds import Feeds
from proxy.durable.reader import Reader
from proxy.events import Event, Finish, TextDelta
from proxy.heading import Heading
from proxy.position import START
from proxy.record import Opening, Place
from proxy.state.stream_log import About, Append, LogStore
from proxy.tasks import end
from tests.journeys import idle
from tests.state.stores import stores_at

pytestmark = pytest.mark.anyio

ABOUT = About(owner="me", heading=Heading("r1", "m", ["m"]), detached=60.0)


async def test_all_who_begin_to_follow_at_once_are_fed() -> None:
    async with stores_at(None) as stores:
        theirs, here = LogStore(stores(), "there", 3600), LogStore(stores(), "here", 3600)
        await theirs.begin("s", ABOUT, Opening("00000001", "there"), asked=None, once=None)
        feeds = Feeds(here)
        running = asyncio.create_task(feeds.run())

        async def read() -> list[type[Event]]:
            async with Reader("s", ABOUT, here, feeds, "r", START).events() as events:
                return [type(event) async for event in events]

        reading = [asyncio.create_task(read()) for _ in range(3)]
        await idle()
        await theirs.append([Append("s", Place(1, 2), "main", b'["la",{"type":"finish"}]')])
        async with asyncio.timeout(10):
            assert await asyncio.gather(*reading) == [[TextDelta, Finish]] * 3, "one of them was not told everything"
        await end(running)
