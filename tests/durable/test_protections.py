"""What keeps a log right, one protection a test. `make sabotage` takes each away, and its test must fail then."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from proxy.durable.feeds import Feeds
from proxy.durable.log import StreamLog
from proxy.durable.reader import Reader
from proxy.durable.writer import Writer
from proxy.errors import WeirError
from proxy.events import Event, TextDelta
from proxy.heading import Heading
from proxy.position import START, Position
from proxy.record import Opening, Place
from proxy.state.orphans import Orphanage
from proxy.state.store import Store
from proxy.state.stream_log import About, Append, LogStore, Outcome
from proxy.tasks import end
from tests.journeys import idle
from tests.state.stores import Stores, stores_at

pytestmark = pytest.mark.anyio

ABOUT = About(owner="me", heading=Heading("r1", "m", ["m"]), detached=60.0)
OPENING = Opening(nonce="00000001", replica="old")


class Slow(LogStore):
    """Appends wait in the middle of the way, while there is a `gate`."""

    gate: asyncio.Event | None = None

    async def append(self, batch: Sequence[Append]) -> list[Outcome]:
        if self.gate is not None:
            await self.gate.wait()
        return await super().append(batch)


@pytest.fixture
async def stores() -> AsyncIterator[Stores]:
    async with stores_at(None) as opened:
        yield opened


@pytest.fixture
async def logs(stores: Stores) -> Slow:
    """A replica named `old` that has written one piece of a stream `s`."""
    logs = Slow(stores(), "old", 3600)
    await logs.begin("s", ABOUT, OPENING, asked=None, once=None)
    assert await logs.append([piece(1)]) == [Outcome.LANDED]
    return logs


def piece(seq: int, epoch: int = 1) -> Append:
    return Append("s", Place(epoch, seq), "main", b'["la "]')


FINISH = Append("s", Place(2, 3), "main", b'[{"type":"finish"}]')


async def adopt(store: Store) -> bool:
    """Whether another replica takes the stream over, as the lease of its producer is gone."""
    await store.client.delete(store.key("lease", "old"))
    return await Orphanage(LogStore(store, "new", 3600)).adopt("s", "old", "00000002") is not None


async def read(logs: LogStore, after: Position = START) -> list[Event]:
    """All that a reader gets of the stream, which has ended. Raises WeirError."""
    reader = Reader("s", ABOUT, logs, Feeds(logs), "r2", after)
    async with reader.events() as events:
        return [event async for event in events]


async def test_redis_refuses_a_producer_whose_stream_was_taken_over(stores: Stores, logs: Slow) -> None:
    assert await adopt(stores())
    assert await logs.append([piece(2)]) == [Outcome.REFUSED], "two replicas write to one log"


async def test_a_log_that_is_gone_does_not_come_back(logs: Slow) -> None:
    await logs.store.client.delete(logs.log("s"))
    assert await logs.append([piece(2)]) == [Outcome.GONE], "half a log was made"
    assert not await logs.store.client.exists(logs.log("s"))


async def test_nothing_is_shown_before_redis_has_acknowledged_it(logs: Slow) -> None:
    logs.gate = asyncio.Event()
    writer = Writer(logs)
    written = StreamLog("s", ABOUT, 1, Opening("00000001", "old", after=1), wake=writer.wake, cap=10**6)
    writing = asyncio.create_task(writer.run())
    written.add(TextDelta(content="la"))
    await idle()
    shown = [event for entry in written.feed.since(Place(0, 0)) or () for event in entry.events]
    assert shown == [], "it was shown, and nobody knows whether it is in the log"
    logs.gate.set()
    await idle()
    shown = [event for entry in written.feed.since(Place(0, 0)) or () for event in entry.events]
    assert [event.seq for event in shown] == [2], "what was acknowledged is not shown"
    await end(writing)


async def test_a_log_that_lacks_an_entry_is_not_read_as_if_it_did_not(logs: Slow) -> None:
    await logs.append([piece(2), Append("s", Place(1, 3), "main", b'[{"type":"finish"}]')])
    await logs.store.client.xdel(logs.log("s"), "1-2")
    with pytest.raises(WeirError, match="went backwards"):
        await read(logs)


async def test_a_position_of_an_epoch_that_redis_forgot_is_refused(logs: Slow) -> None:
    await logs.append([Append("s", Place(1, 2), "main", b'[{"type":"finish"}]')])
    with pytest.raises(WeirError, match="went backwards"):
        await read(logs, after=Position(1, 1, "ffffffff"))


async def test_an_adopter_looks_again_where_the_producer_wrote_meanwhile(
    stores: Stores, logs: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = LogStore.tip

    async def slow_look(self: LogStore, stream_id: str) -> object:
        found = await looks(self, stream_id)
        await logs.append([piece(2)])
        return found

    monkeypatch.setattr(LogStore, "tip", slow_look)
    assert not await adopt(stores()), "it goes on from a position that is not the last"
    monkeypatch.undo()
    new = LogStore(stores(), "new", 3600)
    await new.store.client.delete(new.store.key("adopt", "s"))  # its claim runs out
    assert await adopt(new.store), "it is nobody's now"
    assert await new.append([FINISH]) == [Outcome.LANDED]
    assert [event.seq for event in await read(new)] == [1, 2, 3], "the log has a gap"
