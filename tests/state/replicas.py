"""Replicas that share the logs of durable streams, seen from their store."""

from collections.abc import Sequence
from typing import Any

from proxy.events import Event, TextDelta
from proxy.heading import Heading
from proxy.record import NOWHERE, Entry, Opening, Place
from proxy.state.orphans import Adopted, Orphanage
from proxy.state.stream_log import About, Append, LogStore, Once, Outcome
from tests.batches import write
from tests.state.stores import Stores


def about(**fields: Any) -> About:
    return About(**{"owner": "o", "heading": Heading("r1", "m", ["m"], created=1), "detached": 60.0, **fields})


class Replica:
    """One replica. `die` is what others see of its death: its lease is gone."""

    def __init__(self, stores: Stores, name: str):
        self.name = name
        self.store = stores()
        self.logs = LogStore(self.store, name, ttl=60)
        self.orphanage = Orphanage(self.logs)

    async def begin(self, stream_id: str, once: Once | None = None, asked: bytes | None = None, **fields: Any) -> str:
        opening = Opening(nonce=f"{self.name}1", replica=self.name)
        told = about(once=once.key if once else None, **fields)
        return await self.logs.begin(stream_id, told, opening, asked=asked, once=once)

    async def say(self, stream_id: str, epoch: int, last: int, *events: Event | str) -> Outcome:
        """Appends events, of which the last one has that position."""
        said = [TextDelta(content=it) if isinstance(it, str) else it for it in events]
        return (await self.logs.append([Append(stream_id, Place(epoch, last), *write(said))]))[0]

    async def die(self) -> None:
        await self.store.client.delete(self.logs.lease(self.name))

    async def adopt(self, stream_id: str, producer: str) -> Adopted | None:
        return await self.orphanage.adopt(stream_id, producer, f"{self.name}2")

    async def whole(self, stream_id: str) -> list[Entry]:
        return await self.logs.page(stream_id, NOWHERE, 10_000)

    async def log(self, stream_id: str) -> list[tuple[str, Any]]:
        """All of it: ids, and texts, event types or, of an opening, who wrote it after which position."""
        return [(str(entry.place), _told(entry)) for entry in await self.whole(stream_id)]


def _told(entry: Entry) -> Any:
    if entry.opening is not None:
        return entry.opening.replica, entry.opening.after
    return texts(entry.events)


def texts(events: Sequence[Event]) -> str:
    return "".join(it.content if isinstance(it, TextDelta) else f"<{it.__struct_config__.tag}>" for it in events)
