"""Many streams, the clock and the reader's pace, made one: nothing lost, nothing hoarded, one end."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from unittest.mock import Mock

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from proxy.events import ENDS, Abort, Error, Event, Finish, Quiet, SourceEnd, Start, TextDelta, Usage
from proxy.merge import CLOSING, MOST_EVENTS, MOST_SIZE, LoopClock, Merge, end_of, size_of, source_end
from proxy.testing import merged, play, says, text_of
from tests.journeys import idle, skip

pytestmark = pytest.mark.anyio


class Source:
    """A source by hand: `say` puts an event in it. `read` counts what was taken; `closed` tells that it was closed."""

    def __init__(self) -> None:
        self.read = 0
        self.closed = False
        self._said: asyncio.Queue[Event | Exception] = asyncio.Queue()

    def say(self, *events: Event | Exception) -> None:
        for event in events:
            self._said.put_nowait(event)

    async def events(self) -> AsyncGenerator[Event, None]:
        try:
            while True:
                event = await self._said.get()
                if isinstance(event, BaseException):
                    raise event
                self.read += 1
                yield event
        finally:
            self.closed = True


def words(*contents: str) -> list[TextDelta]:
    return [TextDelta(content=content) for content in contents]


# What comes


async def test_one_source_passes_as_it_came_and_ends_as_it_ended() -> None:
    said = says("a", "b", usage=(3, 2))
    async with merged(said) as merge:
        got = await play(merge)
    assert not merge.labelled
    assert all(event is its for event, its in zip(got, said, strict=True)), "an event is not what the source said"
    assert {event.source for event in got} == {"a"}


async def test_several_come_in_the_order_in_which_they_arrive_each_with_its_name() -> None:
    one, two = Source(), Source()
    async with Merge({"one": one.events(), "two": two.events()}) as merge:
        assert merge.labelled
        for source, word in [(two, "a"), (one, "b"), (one, "c"), (two, "d")]:
            source.say(*words(word))
            await idle()
        got = [await anext(merge) for _ in range(4)]
    assert [(event.source, text_of([event])) for event in got] == [
        ("two", "a"),
        ("one", "b"),
        ("one", "c"),
        ("two", "d"),
    ]


async def test_several_end_one_by_one_and_the_stream_after_the_last() -> None:
    counted = Finish(usage=Usage(input_tokens=5, output_tokens=2))
    async with merged([counted], b=[0.1, Error(message="cut", code="c")], c=[0.2, *words("late"), counted]) as merge:
        got = await play(merge)
    assert [type(event) for event in got] == [SourceEnd, SourceEnd, TextDelta, SourceEnd, Finish]
    assert [(end.source, end.reason) for end in got if isinstance(end, SourceEnd)] == [
        ("a", "finish"),
        ("b", "error"),
        ("c", "finish"),
    ]
    assert got[-1] == Finish(usage=Usage(input_tokens=10, output_tokens=4))
    with pytest.raises(StopAsyncIteration):
        await anext(merge)


@pytest.mark.parametrize(
    ("ends", "whole"),
    [
        ([Finish(), Error(message="x"), Abort()], Finish()),
        ([Finish(usage=Usage(input_tokens=1)), Finish()], Finish(usage=Usage(input_tokens=1))),
        ([Error(message="x"), Abort(reason="told to")], Abort(reason="told to")),
        ([Error(message="x"), Error(message="y")], Error(message="every source failed: x; y")),
    ],
)
def test_the_end_of_a_stream_is_no_lie_about_its_sources(ends: list[Event], whole: Event) -> None:
    assert end_of(ends) == whole


def test_a_source_end_says_what_its_end_said() -> None:
    usage = Usage(output_tokens=1)
    assert source_end("a", Finish(usage=usage)) == SourceEnd(reason="finish", usage=usage, source="a")
    assert source_end("a", Error(message="m", code="c")) == SourceEnd(reason="error", message="m", code="c", source="a")
    assert source_end("a", Abort(reason="r")) == SourceEnd(reason="abort", message="r", source="a")


# Sources that misbehave


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ([], "a: the stream ended without an end"),
        ([ValueError("secret")], "a: an internal error; the log of this server has the details"),
        (["no event"], "a: an internal error; the log of this server has the details"),
    ],
)
async def test_a_source_that_misbehaves_ends_in_an_error(last: list[Event], told: str) -> None:
    async def odd() -> AsyncGenerator[Event, None]:
        yield words("a")[0]
        for event in last:
            if isinstance(event, Exception):
                raise event
            yield event

    async with Merge({"a": odd()}) as merge:
        assert await play(merge) == [TextDelta(content="a", source="a"), Error(message=told, source="a")]


async def test_a_cancel_that_nobody_meant_for_it_is_a_failure_like_any_other() -> None:
    """It ends the task that reads the source: without this, the reader would wait for ever."""

    async def odd() -> AsyncGenerator[Event, None]:
        raise asyncio.CancelledError
        yield

    async with asyncio.timeout(5), Merge({"a": odd()}) as merge:
        assert [type(event) for event in await play(merge)] == [Error]


async def test_nothing_follows_an_end() -> None:
    async with merged([Finish(), *words("a"), Finish()]) as merge:
        assert await play(merge) == [Finish(source="a")]


# How far it reads ahead


@pytest.mark.parametrize(
    ("event", "most"),
    [
        (TextDelta(content="a"), MOST_EVENTS),
        (TextDelta(content="a" * 1000), MOST_SIZE // 1000 + 1),
        (TextDelta(content="a", raw=b" " * 10_000), MOST_SIZE // 10_000 + 1),
        (TextDelta(content="a" * MOST_SIZE * 2), 1),
    ],
)
async def test_a_source_is_read_ahead_as_far_as_there_is_room(event: TextDelta, most: int) -> None:
    source, other = Source(), Source()
    source.say(*[event] * (most + 50))
    async with Merge({"a": source.events(), "b": other.events()}) as merge:
        await idle()
        assert source.read == most, "read too far, or not far enough"
        other.say(Start())
        await idle()
        assert other.read == 1, "one source is held back, and not the other"
        for _ in range(10):
            merge.take("a")
            await idle()
        assert source.read == most + 10, "what was taken makes room"


async def test_a_little_room_is_not_room_enough() -> None:
    source = Source()
    source.say(*words(*"a" * 10), *words(*["a" * MOST_SIZE] * 10))
    async with Merge({"a": source.events()}) as merge:
        await idle()
        for _ in range(10):
            merge.take("a")
            await idle()
        assert source.read == 11
        merge.take("a")
        await idle()
        assert source.read == 12


def test_the_size_of_an_event() -> None:
    sizes = [size_of(event) for event in (TextDelta(content="four"), TextDelta(content="x", raw=b"12"), Start())]
    assert sizes == [4, 2, 0]


# Taking from whom one likes


async def test_a_mode_may_take_from_whom_it_likes() -> None:
    async with merged([*words("a", "b"), Finish()], [0.5, *words("c"), Finish()]) as merge:
        assert merge.ready() == []
        assert await merge.wait() is None
        assert merge.ready() == ["a"]
        await merge.clock.sleep(1)
        assert merge.ready() == ["a", "b"]
        assert merge.oldest(["b", "a"]) == "a"
        assert text_of([merge.take("b"), merge.take("a"), merge.take("a")]) == "cab"
        assert [type(merge.take(name)) for name in merge.ready()] == [SourceEnd, SourceEnd]
        assert await merge.wait() == Finish()
        assert await play(merge) == [], "something follows the end"


# The clock


async def test_a_quiet_comes_when_it_was_asked_for_and_once() -> None:
    async with merged([0.3, *words("a"), 1.0, Finish()]) as merge:
        merge.wake_at(0.1)
        assert (await anext(merge), merge.time()) == (Quiet(), 0.1)
        assert type(await anext(merge)) is TextDelta
        merge.wake_at(0.5)
        assert (await merge.wait(), merge.time()) == (Quiet(), 0.5)
        assert type(await anext(merge)) is Finish


@pytest.mark.parametrize(("asked", "comes"), [([0.1, 0.4], 0.4), ([0.4, 0.1], 0.1), ([0.1, None, 0.3], 0.3)])
async def test_the_last_wish_counts(asked: Sequence[float | None], comes: float) -> None:
    async with merged([1.0, Finish()]) as merge:
        for due in asked:
            merge.wake_at(due)
        assert (type(await anext(merge)), merge.time()) == (Quiet, comes)
        assert type(await anext(merge)) is Finish, "more than one Quiet came"


async def test_no_quiet_comes_when_none_is_wanted_any_more() -> None:
    async with merged([1.0, Finish()]) as merge:
        merge.wake_at(0.1)
        merge.wake_at(None)
        assert type(await anext(merge)) is Finish


async def test_a_quiet_that_is_due_comes_before_what_waits() -> None:
    async with merged([*words("a"), 5.0, Finish()]) as merge:
        merge.wake_at(0.1)
        await merge.clock.sleep(0.2)
        assert [type(await anext(merge)) for _ in range(2)] == [Quiet, TextDelta]


async def test_tokens_cost_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    armed = Mock(wraps=loop.call_at)
    monkeypatch.setattr(loop, "call_at", armed)
    async with Merge({"a": Source().events()}) as merge:
        for _ in range(1000):
            merge.wake_at(merge.time() + 60)
        assert armed.call_count == 1


def test_a_timer_of_uvloop_is_set_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps whole milliseconds: one that came early was set again and again until its time had come."""
    armed = Mock(wraps=LoopClock.call_at)
    monkeypatch.setattr(LoopClock, "call_at", lambda *given: armed(*given))

    async def wait() -> None:
        async with Merge({"a": Source().events()}) as merge:
            for late in (0.0001, 0.0034, 0.0044, 0.0005):
                due = merge.time() + late
                merge.wake_at(due)
                assert type(await anext(merge)) is Quiet
                assert merge.time() >= due, "before its time"

    uvloop.run(wait())
    assert armed.call_count == 4


async def test_the_loops_own_clock_does_it_too() -> None:
    source = Source()
    async with Merge({"a": source.events()}) as merge:
        merge.wake_at(merge.time() + 60)
        waiting = asyncio.ensure_future(anext(merge))
        skip(59)
        await idle()
        assert not waiting.done(), "before its time"
        skip(2)
        await idle()
        assert waiting.done()
        assert await waiting == Quiet()


async def test_time_passes_and_sources_are_held_back_meanwhile() -> None:
    async with merged([*words(*"x" * 1000), Finish()]) as merge:
        await merge.until(7.5)
        assert merge.time() == 7.5
        await merge.until(3.0)
        assert merge.time() == 7.5, "a time that has passed is waited for"
        assert len(merge.ready()) == 1
        assert text_of(await play(merge)) == "x" * 1000


@pytest.mark.parametrize(
    ("ends", "over"), [([Finish()], 9), ([Error(message="x")], 1), ([Abort()], 1), ([Abort(), Finish()], 9)]
)
async def test_nobody_is_kept_waiting_in_a_stream_that_broke(ends: list[Event], over: float) -> None:
    scripts: list[list[Event | float]] = [[*words("a"), 1.0, end] for end in ends]
    async with merged(*scripts) as merge:
        await merge.until(9)
        assert merge.time() == over
        await merge.until(9)
        assert merge.time() == over


async def test_it_is_starved_while_its_reader_waits_for_the_sources() -> None:
    source = Source()
    async with Merge({"a": source.events()}) as merge:
        assert not merge.starved
        waiting = asyncio.ensure_future(anext(merge))
        await idle()
        assert merge.starved
        source.say(Start())
        await waiting
        assert not merge.starved


# Leaving


async def test_leaving_it_closes_the_sources() -> None:
    sources = [Source() for _ in range(4)]
    for number, source in enumerate(sources):
        source.say(*words("a") * number * MOST_EVENTS)  # one says nothing, one just fills its room, two wait for room
    async with Merge({str(number): source.events() for number, source in enumerate(sources)}) as merge:
        await anext(merge)
    assert [source.closed for source in sources] == [True] * 4


async def test_leaving_it_at_once_is_fine() -> None:
    source = Source()
    async with Merge({"a": source.events()}):
        pass
    assert source.read == 0


class Slow(Source):
    """Takes a second to let go of its upstream."""

    async def events(self) -> AsyncGenerator[Event, None]:
        self.let_go = False
        try:
            async for event in super().events():
                yield event
        finally:
            await asyncio.sleep(CLOSING - 0.5)
            self.let_go = True


@pytest.mark.parametrize("said", [[Start()], [Start(), Finish()], [Start()] * (MOST_EVENTS + 1)])
async def test_a_source_may_take_a_while_to_let_go_and_nobody_waits_for_the_end_meanwhile(said: list[Event]) -> None:
    """A connection that is put back in order can be used again."""
    source = Slow()
    source.say(*said)

    async def read() -> None:
        async with Merge({"a": source.events()}) as merge:
            await anext(merge)
            if type(said[-1]) in ENDS:
                assert await anext(merge) is said[-1], "the end waits until the source has let go"

    reading = asyncio.ensure_future(read())
    await idle()
    assert not reading.done()
    skip(CLOSING - 0.4)
    await reading
    assert source.let_go, "the source was not left the time to let go"


async def test_a_source_that_will_not_go_is_made_to() -> None:
    async def clinging() -> AsyncGenerator[Event, None]:
        try:
            while True:
                yield Start()
                await asyncio.sleep(3600)
        finally:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    async def read() -> None:
        async with Merge({"a": clinging()}) as merge:
            await anext(merge)

    reading = asyncio.ensure_future(read())
    await idle()
    skip(CLOSING + 0.1)
    await asyncio.wait_for(reading, 1)


async def test_a_source_that_fails_to_close_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def odd() -> AsyncGenerator[Event, None]:
        try:
            yield Finish()
        finally:
            raise ValueError("in closing")

    async with Merge({"a": odd()}) as merge:
        assert [type(event) for event in await play(merge)] == [Finish]
        await idle()
    assert "closing source a" in caplog.text


# Whatever comes


STEPS = st.lists(st.one_of(st.sampled_from(["x", "yy"]), st.sampled_from([0.0, 0.1, 0.25])), max_size=8)


@given(st.lists(st.tuples(STEPS, st.sampled_from([Finish, Abort, None])), min_size=1, max_size=3), st.data())
def test_each_source_is_read_in_order_and_ends_once_however_it_is_read(
    sources: list[tuple[list[str | float], type[Event] | None]], data: st.DataObject
) -> None:
    scripts = [
        [*(TextDelta(content=it) if isinstance(it, str) else it for it in steps), *([end()] if end else [])]
        for steps, end in sources
    ]

    async def read() -> list[Event]:
        got: list[Event] = []
        async with merged(*scripts) as merge:
            while True:
                if data.draw(st.booleans()):
                    got.append(await anext(merge))
                elif (event := await merge.wait()) is None:
                    got.append(merge.take(data.draw(st.sampled_from(merge.ready()))))
                else:
                    got.append(event)
                if type(got[-1]) in ENDS:
                    return got

    got = asyncio.run(read())
    for name, script in zip("abc", scripts, strict=False):
        said = [event for event in script if isinstance(event, TextDelta)]
        mine = [event for event in got[:-1] if event.source == name]
        texts = [event for event in mine if isinstance(event, TextDelta)]
        assert [*map(id, texts)] == [*map(id, said)], f"{name} said {said}, and {texts} came"
        assert [type(event) for event in mine[len(said) :]] == ([SourceEnd] if len(scripts) > 1 else [])
    finished = any(end is Finish for _, end in sources)
    assert (type(got[-1]) is Finish) == finished, f"the stream ended in {got[-1]}"
