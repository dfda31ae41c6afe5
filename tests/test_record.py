"""What the log keeps of an event: whatever it is, in few bytes, and as it was."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import events as kinds
from proxy.events import ENDS, Abort, Error, Event, Finish, TextDelta, ToolOutput, Usage, Vendor
from proxy.record import Draft, Entry, Opening, Place, entry_of, read, written
from tests.batches import write
from tests.test_recorder import JSON, SLOW, TEXTS

OBJECTS = st.none() | st.dictionaries(TEXTS, JSON, max_size=2)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("choice", "chunk", "extra", "details"), OBJECTS),
    **dict.fromkeys(("input", "output"), JSON),
    "raw": st.none(),
    "parts": st.just(1),
    "source": st.sampled_from(["", "a", "b"]),
    "usage": st.none() | st.builds(Usage, input_tokens=st.integers(0, 9), details=OBJECTS),
}


def anything(kind: type[Event]) -> st.SearchStrategy[Event]:
    fields = {it.name: st.from_type(it.type) for it in msgspec.structs.fields(kind) if it.name not in FIELDS}
    fields |= {it.name: FIELDS[it.name] for it in msgspec.structs.fields(kind) if it.name in FIELDS}
    return st.builds(kind, **fields | ({"raw": st.none() | st.binary(max_size=8)} if kind is Vendor else {}))


KINDS = [it for it in vars(kinds).values() if isinstance(it, type) and issubclass(it, Event)]
RECORDED = [kind for kind in KINDS if kind not in (Event, kinds.Quiet)]


@given(st.lists(st.sampled_from(RECORDED).flatmap(anything), min_size=1, max_size=4), st.integers(0, 10**12))
@settings(suppress_health_check=SLOW)
def test_a_batch_reads_as_it_was_written(events: list[Event], before: int) -> None:
    for seq, event in enumerate(events, before + 1):
        event.seq = seq
    assert read(*write(events), before + len(events)) == events


def test_whose_an_event_is_does_not_change_in_company() -> None:
    """The end of a stream of several sources is nobody's."""
    sources = [["a", ""], ["", "a"], ["a", "b"], ["a", "a"], ["", ""]]
    for pair in sources:
        batch = [TextDelta(content="x", source=source) for source in pair]
        assert [event.source for event in read(*write(batch), 2)] == pair


def test_what_nobody_can_write_down_is_told_before_it_has_a_position() -> None:
    for odd in (TextDelta(content="\ud83d"), ToolOutput(id="c", output=object())):
        with pytest.raises((UnicodeError, TypeError)):
            written(odd)


@pytest.mark.parametrize(
    ("id", "fields"),
    [
        ("1-0", {"closing": "{}"}),
        ("1-0", {"opening": "{}"}),
        ("1-1", {"m": '["a"]', "n": '["b"]'}),
        ("1-1", {"m": "[]"}),
        ("1-1", {"m": '[{"type": "song"}]'}),
    ],
)
def test_what_another_version_wrote_is_told_from_what_is_broken_here(id: str, fields: dict[str, str]) -> None:
    with pytest.raises(msgspec.MsgspecError):
        entry_of(id, fields)


def test_what_it_takes_is_counted_in_bytes() -> None:
    draft = Draft()
    draft.add(TextDelta(content="é"))
    assert draft.size == len('"é"'.encode())
    draft.add(ToolOutput(id="c", output="a" * 1000))
    assert draft.size > 1000


def test_the_order_of_places_is_that_of_the_log() -> None:
    assert Place(1, 10) < Place(2, 0) < Place(2, 11) < Place(10, 0)
    assert str(Place(2, 11)) == "2-11"


def test_nothing_comes_after_an_end() -> None:
    ends: list[Event] = [Finish(), Error(message="x"), Abort()]
    assert {type(event) for event in ends} == ENDS
    for end in ends:
        assert Entry(Place(1, 2), None, [TextDelta(content="a"), end]).ends
    assert not Entry(Place(1, 1), None, [TextDelta(content="a")]).ends
    assert not Entry(Place(1, 0), Opening(nonce="n", replica="r"), []).ends
