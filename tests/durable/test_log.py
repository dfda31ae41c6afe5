"""A stream's log, as its producer has it: no gap, one batch on its way, and nothing shown before it is there."""

import asyncio
from typing import Any

import pytest

from proxy.durable.feed import PATIENCE
from proxy.durable.log import MOST_WAITING, TAKEN_OVER, StreamLog
from proxy.errors import StoreAway, WeirError
from proxy.events import Error, Event, Finish, TextDelta, ToolOutput
from proxy.record import Place, read
from proxy.state.stream_log import Append, Outcome
from proxy.testing import chunk
from tests.durable.logs import add, landed, log_of, told
from tests.journeys import idle
from tests.state.replicas import texts
from tests.wire.test_openai import read as events_of

pytestmark = pytest.mark.anyio

AWAY = StoreAway("a durable stream")


def said(batch: Append) -> str:
    return texts(read(batch.source, batch.array, batch.place.seq))


def shown(log: StreamLog) -> list[str]:
    """What readers have been given, after the opening."""
    return (told(log.feed.since(Place(log.epoch, 0))) or [])[:]


async def test_what_is_added_is_shown_once_it_has_landed() -> None:
    log = log_of()
    add(log, "x", "y")
    batch = log.next_batch()
    assert batch is not None
    assert (str(batch.place), said(batch)) == ("1-2", "xy")
    assert shown(log) == [], "a reader sees what Redis has not acknowledged"
    assert log.heard(Outcome.LANDED, 0.0) is False
    assert shown(log) == ["xy"]
    assert log.acknowledged == 2


async def test_one_batch_is_on_its_way_and_what_comes_meanwhile_is_the_next() -> None:
    log = log_of()
    add(log, "x")
    first = log.next_batch()
    add(log, "y", "z")
    assert log.next_batch() is first, "a second one left before the first was there"
    assert log.heard(Outcome.LANDED, 0.0) is True, "the writer is not told that there is more"
    assert (str(landed(log).place), shown(log)) == ("1-3", ["x", "yz"])
    assert log.next_batch() is None


async def test_the_writer_is_woken_once_for_a_batch() -> None:
    woken: list[StreamLog] = []
    log = log_of(wake=woken.append)
    add(log, "x")
    log.next_batch()
    add(log, "y", "z")
    assert woken == [log], "it is woken for what it will be told of anyway"


async def test_an_epoch_goes_on_where_the_last_one_ended() -> None:
    log = log_of(epoch=3, after=17)
    add(log, "x")
    assert str(landed(log).place) == "3-18"
    assert log.feed.since(Place(2, 17)) is None, "what came before is in the log alone"


async def test_a_new_log_is_known_from_its_opening_on() -> None:
    opened = log_of().feed.since(Place(0, 0))
    assert opened is not None
    assert [entry.opening and entry.opening.replica for entry in opened] == ["a"]


async def test_nothing_comes_after_an_end() -> None:
    log = log_of()
    add(log, "x", Finish(), "y", Error(message="z"))
    assert log.is_closed
    assert said(landed(log)) == "x<finish>"
    assert log.finished.done(), "it ended, and whoever waits for that does not hear of it"
    assert log.feed.ended


# What Redis says.


@pytest.mark.parametrize("outcome", [Outcome.UNSURE, Outcome.REFUSED])
async def test_a_batch_of_which_nothing_is_known_is_looked_for_first(outcome: Outcome) -> None:
    log = log_of()
    add(log, "x")
    first = log.next_batch()
    assert first is not None
    assert not log.unsure
    assert log.heard(outcome, 1.0) is True
    assert log.unsure
    assert shown(log) == []
    add(log, "y")
    assert log.saw(Place(1, 0)) is True, "it never arrived"
    assert not log.unsure
    assert log.next_batch() == first, "it is sent again otherwise than before"
    log.heard(outcome, 2.0)
    assert log.saw(Place(1, 1)) is True, "it has landed, and there is more"
    assert shown(log) == ["x"]
    assert said(landed(log)) == "y"


async def test_a_higher_epoch_means_that_it_is_anothers_now() -> None:
    log = log_of()
    stopped: list[str] = []
    log.stop = stopped.append
    add(log, "x")
    log.next_batch()
    log.heard(Outcome.REFUSED, 1.0)
    assert log.saw(Place(2, 0)) is False
    assert (log.lost, stopped, log.finished.done()) == (True, [TAKEN_OVER], True), "its provider is asked on"
    assert log.feed.failed is None, "its readers go on from the log, and are told that it failed"
    add(log, "y")
    assert log.next_batch() is None
    assert shown(log) == []


@pytest.mark.parametrize("tip", [Place(1, 1), Place(1, 3), Place(1, 0)])
async def test_a_log_that_went_backwards_is_told_as_such(tip: Place) -> None:
    log = log_of()
    add(log, "x", "y")
    landed(log)
    add(log, "z", "z")
    log.next_batch()
    log.heard(Outcome.UNSURE, 1.0)
    assert log.saw(tip) is False
    assert log.feed.failed is not None
    assert (log.feed.failed.status, log.feed.failed.code, log.lost) == (409, "log_regressed", True)


@pytest.mark.parametrize("how", ["refused at once", "seen later"])
async def test_a_log_that_is_gone_is_told_as_such(how: str) -> None:
    log = log_of()
    add(log, "x")
    log.next_batch()
    if how == "refused at once":
        assert log.heard(Outcome.GONE, 1.0) is False
    else:
        log.heard(Outcome.UNSURE, 1.0)
        assert log.saw(None) is False
    assert log.feed.failed is not None
    assert (log.feed.failed.status, log.lost) == (410, True)


async def test_what_is_heard_after_it_was_lost_changes_nothing() -> None:
    log = log_of()
    add(log, "x")
    log.next_batch()
    log.lose(WeirError("released"))
    assert log.heard(Outcome.LANDED, 1.0) is False
    assert log.heard(Outcome.GONE, 1.0) is False
    assert log.saw(Place(1, 1)) is False
    assert log.feed.failed is not None
    assert (shown(log), log.feed.failed.message) == ([], "released")


# Redis away for too long.


def given_up(*flying: Any, waiting: tuple[Any, ...] = ()) -> StreamLog:
    log = log_of()
    add(log, *flying)
    log.next_batch()
    log.heard(Outcome.UNSURE, 1.0)
    add(log, *waiting)
    log.give_up(AWAY)
    return log


async def test_it_is_stuck_after_ten_seconds_without_an_acknowledgement() -> None:
    log = log_of()
    add(log, "x")
    log.next_batch()
    assert not log.is_stuck(1e9), "nothing has failed"
    log.heard(Outcome.UNSURE, 5.0)
    log.saw(Place(1, 0))
    log.heard(Outcome.UNSURE, 5.0 + PATIENCE / 2)
    assert not log.is_stuck(5.0 + PATIENCE - 0.1)
    assert log.is_stuck(5.0 + PATIENCE), "it is counted anew with each attempt"
    log.saw(Place(1, 1))
    assert not log.is_stuck(1e9), "it has landed"


async def test_its_readers_hear_at_once_and_the_log_ends_there() -> None:
    log = given_up("x", waiting=("y", "z"))
    assert log.feed.failed is AWAY
    assert not log.is_stuck(1e9), "it is given up again and again"
    assert log.is_closed
    assert log.saw(Place(1, 1)) is True
    end = landed(log)
    assert (str(end.place), said(end)) == ("1-2", "<error>"), "it says what nobody may see, or leaves a gap"
    assert shown(log) == ["x", "<error>"]
    assert log.finished.done()


async def test_an_end_that_is_on_its_way_stays_the_only_one() -> None:
    log = given_up("x", Finish())
    log.saw(Place(1, 2))
    assert log.next_batch() is None, "something was written after the end"
    assert shown(log) == ["x<finish>"]
    assert log.finished.done()


async def test_an_end_that_nobody_may_see_gives_way() -> None:
    log = given_up("x", waiting=("y", Finish()))
    log.saw(Place(1, 1))
    assert said(landed(log)) == "<error>"


# Bounds.


async def test_a_provider_is_held_back_while_much_waits() -> None:
    log = log_of()
    for _ in range(MOST_WAITING // 1000 + 1):
        add(log, "x" * 1000)
    assert log.is_crowded
    waiting = asyncio.create_task(log.room())
    await idle()
    assert not waiting.done()
    log.next_batch()
    await asyncio.wait_for(waiting, 1)
    assert not log.is_crowded


@pytest.mark.parametrize("loses", [True, False])
async def test_nobody_waits_for_room_in_a_log_that_is_over(loses: bool) -> None:
    log = log_of()
    add(log, "x" * MOST_WAITING)
    waiting = asyncio.create_task(log.room())
    await idle()
    if loses:
        log.lose(None)
    else:
        log.give_up(AWAY)
    await asyncio.wait_for(waiting, 1)


async def test_an_end_needs_no_room() -> None:
    log = log_of()
    add(log, "x" * MOST_WAITING, Finish())
    assert not log.is_crowded


async def test_all_that_waits_counts_not_only_text() -> None:
    log = log_of()
    add(log, ToolOutput(id="c", output="x" * MOST_WAITING))
    assert log.is_crowded


async def test_a_log_at_its_cap_says_so() -> None:
    log = log_of(cap=20)
    add(log, "x" * 10)
    landed(log)
    assert not log.is_full
    add(log, "x" * 10)
    landed(log)
    assert log.is_full


@pytest.mark.parametrize("odd", [TextDelta(content="\ud83d"), ToolOutput(id="c", output=object())])
async def test_what_cannot_be_written_is_its_producers_affair(odd: Event) -> None:
    """The writer works for all streams: it must not meet with it."""
    log = log_of()
    add(log, "x")
    with pytest.raises((UnicodeError, TypeError)):
        log.add(odd)
    add(log, "y")
    assert (said(landed(log)), log.seq) == ("xy", 2), "it took a position"


async def test_of_several_sources_each_keeps_what_its_chunks_repeat() -> None:
    """Their chunks come in turns, and an encoder has a writer for each."""
    log = log_of(sources=("a", "b"))
    spoken = [
        chunk({"role": "assistant"}, system_fingerprint="fp"),
        chunk({"reasoning_content": "r", "content": "t", "mood": "sunny"}, system_fingerprint="fp", x_groq=1),
    ]
    one, other = events_of(*spoken), events_of(*spoken)
    for pair in zip(one, other, strict=True):
        for event, source in zip(pair, "ab", strict=True):
            event.source = source
            log.add(event)
    batch = landed(log)
    events = read(batch.source, batch.array, batch.place.seq)
    for source in "ab":
        start, thought, text = (it for it in events if it.source == source)
        assert start.chunk == {"system_fingerprint": "fp"}, "what one repeats is not told of the other"
        assert (thought.chunk, thought.choice) == ({"x_groq": 1}, None)
        assert (text.chunk, text.choice) == (None, {"delta": {"mood": "sunny"}}), "a chunk's own is lost or told twice"


async def test_a_batch_tells_what_came_in_one_chunk_once() -> None:
    log = log_of()
    for event in events_of(chunk({"role": "assistant", "content": "a"}, finish="stop", x_groq=1)):
        log.add(event)
    batch = landed(log)
    assert batch.array.count(b"x_groq") == 1


async def test_what_was_written_before_counts_and_is_not_said_again() -> None:
    log = log_of(epoch=2, after=3, cap=1000)
    log.take_up({"system_fingerprint": "fp", "weights": [1]}, 995)
    for event in events_of(chunk({"content": "a"}, system_fingerprint="fp")):
        log.add(event)
    assert landed(log).array == b'[{"type":"start","id":"chatcmpl-1","model":"scripted","created":1700000000},"a"]'
    assert log.is_full
