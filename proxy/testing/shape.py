"""What a mode must keep of what it was given: told from its sources' scripts and from what the reader got."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

from proxy.chunk import add_choice, beside
from proxy.events import ENDS, Event, Quiet, SourceEnd, TextDelta
from proxy.generator import MARKS, StreamingGenerator
from proxy.testing.merge import Script, ScriptedMerge


async def shape(mode: StreamingGenerator, scripts: Mapping[str, Script], pause: float = 0.0) -> list[Event]:
    """What `mode` makes of sources that play `scripts`, for a reader who takes `pause` seconds an event.

    Raises AssertionError that tells the first rule of a mode that was broken.
    """
    played = {name: [*script] for name, script in scripts.items()}
    given = {name: [step for step in script if isinstance(step, Event)] for name, script in played.items()}
    before = copy.deepcopy(given)
    got: list[Event] = []
    async with ScriptedMerge(played) as merge, aclosing(mode.generate(merge)) as shaped:
        async for event in shaped:
            got.append(event)
            if pause:
                await merge.clock.sleep(pause)
    _check_end(got, [*given.values()])
    strays = [event for event in got[:-1] if event.source not in given]
    assert not strays, f"an event of no source came out: {strays[0]}"
    for name, events in given.items():
        _check_untouched(name, before[name], events)
        _check_source(
            name, events, [event for event in got[:-1] if event.source == name], mode.reorders, len(given) > 1
        )
    return got


def _check_end(got: Sequence[Event], given: Sequence[Sequence[Event]]) -> None:
    for event in got:
        assert isinstance(event, Event), f"a mode yields events, not {event!r}"
        assert not isinstance(event, Quiet), "a Quiet was passed on to the reader"
        assert event.seq == 0, f"the place in the stream is given by others: {event}"
    assert got, "the stream ended without an end"
    assert type(got[-1]) in ENDS, f"the stream ended with {got[-1]}, which is no end"
    ends = [event for event in got if type(event) in ENDS]
    assert len(ends) == 1, f"the stream has {len(ends)} ends: {ends}"
    if len(given) == 1 and given[0] and type(given[0][-1]) in ENDS:
        assert got[-1] is given[0][-1], f"the stream ended with {got[-1]}, its source with {given[0][-1]}"


def _check_untouched(name: str, before: Sequence[Event], after: Sequence[Event]) -> None:
    for was, event in zip(before, after, strict=True):
        was.source = event.source
        assert event == was, f"source {name}: an event was changed: {was} became {event}; make a new one"


def _check_source(name: str, given: Sequence[Event], got: Sequence[Event], reorders: bool, labelled: bool) -> None:
    if labelled:
        *got, last = got or [Event()]
        assert isinstance(last, SourceEnd), f"source {name}: its last event is {last}, not its SourceEnd"
    known = {id(event) for event in given}
    for event in got:
        made = isinstance(event, TextDelta) and event.raw is None
        assert made or id(event) in known, f"source {name}: {event} is not what was given; only text may be made anew"
    told = [event for event in given if type(event) not in ENDS]
    expected, seen = _account(told, reorders), _account(got, reorders)
    for (mark, should), (its, has) in itertools.zip_longest(expected, seen, fillvalue=(None, {})):
        assert mark is its, f"source {name}: {its or 'its end'} came where {mark or 'its end'} belongs"
        where = f"before {mark}" if mark else "in all"
        for what in {**should, **has}:
            assert has.get(what) == should.get(what), (
                f"source {name}, {where}: the reader got as {what} {has.get(what)!r}, and should {should.get(what)!r}"
            )


def _account(events: Sequence[Event], reorders: bool) -> list[tuple[Event | None, dict[str, Any]]]:
    """What had been said of each kind when an event came that keeps its place; and in all."""
    said: dict[str, Any] = {}
    account: list[tuple[Event | None, dict[str, Any]]] = []
    for event in events:
        if isinstance(event, TextDelta):
            text, more = f"text of choice {event.index}", f"what stood beside choice {event.index}"
            extra = beside(event.raw, event.index) if event.raw and event.choice is None else event.choice or {}
            said |= {text: said.get(text, "") + event.content} if event.content else {}
            if extra:
                said[more] = copy.deepcopy(said.get(more, {}))
                add_choice(said[more], copy.deepcopy(extra))
        elif reorders and type(event) not in MARKS:
            kind = type(event).__name__ + (" (answer)" if getattr(event, "answer", False) else "")
            said |= {kind: [*said.get(kind, ()), event]}
        else:
            account.append((event, dict(said)))
    return [*account, (None, said)]
