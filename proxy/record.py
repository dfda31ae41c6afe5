"""Events as the log of a durable stream keeps them: each by itself, and a token in a few bytes.

A batch of events is a JSON array. A piece of plain text is a string in it, all else an object with its `type`. Whose
they are (`source`) is kept beside the array, once for all of those that do not say otherwise.
"""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import msgspec

from proxy import events as kinds
from proxy.errors import RequestError, WeirError
from proxy.events import ENDS, Event, TextDelta

_Any = (
    kinds.Start
    | kinds.TextDelta
    | kinds.ReasoningDelta
    | kinds.ToolInputDelta
    | kinds.ToolInput
    | kinds.ToolOutput
    | kinds.FinishStep
    | kinds.Usage
    | kinds.Vendor
    | kinds.Steered
    | kinds.Recovered
    | kinds.SourceEnd
    | kinds.Finish
    | kinds.Error
    | kinds.Abort
)
_decode = msgspec.json.Decoder(Annotated[list[str | _Any], msgspec.Meta(min_length=1)]).decode
_encode = msgspec.json.Encoder().encode


def written(event: Event) -> bytes:
    """A bare event as it stands among others of its source. Raises UnicodeError, TypeError if it cannot."""
    return _encode(_short(event, event.source))


class Draft:
    """A batch in the making. `size`: the bytes of its events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.size = 0
        self._each: list[bytes] = []

    def add(self, event: Event) -> None:
        """Raises UnicodeError, TypeError for an event that cannot be written, which is not in it then."""
        it = written(event)
        self._each.append(it)
        self.size += len(it)
        self.events.append(event)

    def write(self) -> tuple[str, bytes]:
        """Whose the events are, those that do not say otherwise, and the array. Their positions are not in it."""
        events = self.events
        source = events[0].source
        if len(events) == 1 or all(event.source == source for event in events):
            return source, b"[" + b",".join(self._each) + b"]"
        source = source if all(event.source for event in events) else ""
        return source, _encode([_short(event, source) for event in events])


def _short(event: Event, source: str) -> str | Event:
    if event.source != source:
        return msgspec.structs.replace(event, seq=0)
    if type(event) is TextDelta and not event.index and event.raw is None and not (event.choice or event.chunk):
        return event.content
    return msgspec.structs.replace(event, seq=0, source="")


def read(source: str, array: str | bytes, last: int) -> list[Event]:
    """The events of a batch, of which the last one has position `last`. Raises msgspec.MsgspecError."""
    found = _decode(array)
    events: list[Event] = [TextDelta(content=it) if isinstance(it, str) else it for it in found]
    for seq, event in enumerate(events, start=last - len(events) + 1):
        event.seq = seq
        event.source = event.source or source
    return events


def answers(event: Event) -> bool:
    """Whether it is a part of an answer, be it that this was all; not that there is none."""
    return not isinstance(event, kinds.Recovered | kinds.Error | kinds.Abort)


class Opening(msgspec.Struct, omit_defaults=True):
    """How an epoch begins: who writes it, after which event, and how often the stream has been recovered by then."""

    nonce: str
    replica: str
    after: int = 0
    recoveries: int = 0


class Place(NamedTuple):
    """Where an entry stands in its log: they are in this order, and Redis has them under these ids."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


NOWHERE = Place(0, 0)  # before everything


class Entry(msgspec.Struct, frozen=True):
    """An entry of a log: an epoch's opening, at `seq` 0, or a batch of events, at the position of the last one.

    `size`: what the events take there, in bytes.
    """

    place: Place
    opening: Opening | None
    events: list[Event]
    size: int = 0

    @property
    def ends(self) -> bool:
        """Nothing comes after it."""
        return bool(self.events) and type(self.events[-1]) in ENDS


def entry_of(id: str, fields: Mapping[str, str]) -> Entry:
    """Raises msgspec.MsgspecError for what no Weir of this version has written."""
    place = place_of(id)
    if place.seq == 0:
        return Entry(place, msgspec.json.decode(fields.get("opening", ""), type=Opening), [])
    if len(fields) > 1:
        raise msgspec.ValidationError(f"more than a batch of events: {sorted(fields)}")
    ((source, array),) = fields.items()
    return Entry(place, None, read(source, array, place.seq), len(array))


def gone(stream_id: str) -> RequestError:
    """What readers are told of a log that is no longer there."""
    told = f"the time of stream {stream_id[:100]!r} is over: what it said is no longer kept"
    return RequestError(told, status=410, code="stream_gone")


def regressed() -> WeirError:
    """What readers are told of a log that lacks what they have seen, or has a gap."""
    told = (
        "the log of this stream went backwards: Redis has lost what it had acknowledged; read the stream anew, from 0"
    )
    return WeirError(told, status=409, code="log_regressed")


def unreadable() -> WeirError:
    """What readers are told of an entry that cannot be read."""
    told = "this stream is produced by another version of Weir, which this one does not understand"
    return WeirError(told, code="log_unreadable")


def place_of(id: str) -> Place:
    epoch, seq = id.split("-")
    return Place(int(epoch), int(seq))
