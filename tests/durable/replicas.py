"""Replicas on one store, with scripted providers behind them; they die without a word when the test says so."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

from proxy.adapter import BaseProviderAdapter
from proxy.durable.reader import Reader
from proxy.durable.streams import DurableStreams
from proxy.events import Event
from proxy.journey import Journey
from proxy.pipeline.stream import Stream
from proxy.position import START, Position
from proxy.record import NOWHERE
from proxy.request import ChatRequest
from proxy.settings import Settings
from proxy.state.sessions import SessionStore
from proxy.state.store import Store
from proxy.state.stream_log import Once
from proxy.tasks import end
from tests.journeys import House, request
from tests.process import until
from tests.state.stores import Stores

OWNER = "me"


class Replica:
    """One process, as far as durable streams go. `house` is what produces them."""

    def __init__(self, store: Store, name: str, *adapters: BaseProviderAdapter, **settings: Any):
        self.name = name
        self.store = store
        self.house = House(*adapters)
        self.house.pipeline.sessions = SessionStore(store, 3600)
        self.streams = DurableStreams(self.house.pipeline, store, name, Settings(**settings))

    async def ask(self, once: Once | None = None, **fields: Any) -> Reader:
        """The first reader of a new stream; `fields` are those of the request."""
        asked = request("m", **fields)
        asked.owner = OWNER
        return await self.put(asked, once)

    async def put(self, asked: ChatRequest, once: Once | None = None) -> Reader:
        stream = Stream(Journey("r1", "m", asked.options.mode), self.name, OWNER)
        return await self.streams.begin(asked, stream, once=once)

    async def read(self, stream_id: str, after: Position = START, owner: str = OWNER) -> Reader:
        return await self.streams.read(stream_id, owner, "r2", after)

    async def die(self) -> None:
        """As with kill -9, and its lease runs out at once."""

        async def unwritten(*_: object) -> None:
            """The dead do not tidy up."""

        self.house.pipeline.sessions.end = unwritten  # type: ignore[assignment]
        await end(*self.streams._background, *self.streams._produced._tasks)
        await self.store.client.delete(self.streams.logs.lease(self.name))


class Fleet:
    """`await fleet(adapter, ...)` starts one more replica on the same store."""

    def __init__(self, stores: Stores):
        self.stores = stores
        self._stack = AsyncExitStack()
        self._count = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def __call__(self, *adapters: BaseProviderAdapter, **settings: Any) -> Replica:
        self._count += 1
        replica = Replica(self.stores(), f"replica{self._count}", *adapters, **settings)
        await replica.streams.start()
        self._stack.push_async_callback(replica.streams.close)
        return replica


class Reading:
    """What one reader has got so far: its events, and the position of each."""

    def __init__(self, reader: Reader):
        self.reader = reader
        self.events: list[Event] = []
        self.places: list[Position] = []

    async def all(self) -> list[Event]:
        """Reads to the stream's end."""
        await self.read(lambda: False)
        return self.events

    async def read(self, enough: Any) -> None:
        async with self.reader.events() as events:
            async for event in events:
                self.events.append(event)
                self.places.append(self.reader.at)
                if enough():
                    return


async def all_of(reader: Reader) -> list[Event]:
    return await Reading(reader).all()


async def logged(replica: Replica, stream_id: str) -> list[Event]:
    """All that stands in a stream's log."""
    entries = await replica.streams.logs.page(stream_id, NOWHERE, count=10_000)
    return [event for entry in entries for event in entry.events]


async def log_holds(replica: Replica, stream_id: str, count: int) -> None:
    """Waits until so many events are acknowledged."""

    async def holds() -> bool:
        return len(await logged(replica, stream_id)) >= count

    await until(holds, f"{count} events in the log")


def told(events: Sequence[Event]) -> list[str]:
    """What kinds of events they are."""
    return [str(event.__struct_config__.tag) for event in events]
