"""Logs of durable streams, as their producer has them, for tests."""

from collections.abc import Callable, Sequence

from proxy.durable.log import StreamLog
from proxy.events import Event, TextDelta
from proxy.record import Entry, Opening, Place, written
from proxy.state.stream_log import Append, Outcome
from tests.state.replicas import about, texts


def log_of(
    stream_id: str = "s",
    epoch: int = 1,
    *,
    after: int = 0,
    sources: Sequence[str] = ("m",),
    cap: int = 10_000,
    wake: Callable[[StreamLog], None] = lambda it: None,
) -> StreamLog:
    told = about()
    told.heading.sources = list(sources)
    opening = Opening(nonce="n", replica="a", after=after)
    return StreamLog(stream_id, told, epoch, opening, wake=wake, cap=cap)


def add(log: StreamLog, *words: str | Event) -> None:
    for it in words:
        log.add(TextDelta(content=it) if isinstance(it, str) else it)


def landed(log: StreamLog) -> Append:
    """Its next batch, once it has been acknowledged."""
    batch = log.next_batch()
    assert batch is not None, "there is nothing to write"
    log.heard(Outcome.LANDED, 0.0)
    return batch


def entry(seq: int, *words: str | Event, epoch: int = 1) -> Entry:
    events: list[Event] = [TextDelta(content=it) if isinstance(it, str) else it for it in words]
    for number, event in enumerate(events, seq - len(events) + 1):
        event.seq = number
    return Entry(Place(epoch, seq), None, events, size=sum(len(written(event)) for event in events))


def told(entries: Sequence[Entry] | None) -> list[str] | None:
    return None if entries is None else [texts(it.events) for it in entries]
