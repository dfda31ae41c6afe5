"""The whole journey: whatever happens on it, it ends, and nothing is left behind."""

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import Kind, NoAnswer, ProviderError, RequestError, Stopped
from proxy.events import Abort, Error, Event, Finish, SourceEnd, Start, TextDelta, Usage, commits
from proxy.generator import GeneratorMode, StreamingGenerator
from proxy.journey import Journey
from proxy.merge import Merge
from proxy.monitor import Monitor
from proxy.pipeline.stream import Stream
from proxy.request import ChatRequest
from proxy.session.conversation import Feedback
from proxy.testing import Played, says, scripted, text_of
from tests.journeys import HANG, House, Odd, idle, odd, request, skip

pytestmark = pytest.mark.anyio

A = TextDelta(content="a")


def left_behind(house: House) -> list[str]:
    """What should not be there when all requests are over."""
    found = [f"{up.id} counts as active" for up in house.router if up.meter.active]
    found += [f"{up.id} is held" for up in house.router if up._holds]
    found += [f"{up.id} is still being probed" for up in house.router if up.circuit.probe]
    if house.pipeline.live or house.failover.budget.running or house.failover.budget.retrying:
        found.append(f"{house.pipeline.live} are live, {house.failover.budget.retrying} retry")
    return found


async def test_what_is_on_its_way_is_live() -> None:
    house = House(scripted("a", [A, HANG], models=["m"]))
    journeys = [Journey(f"r{number}", "m") for number in range(3)]
    tasks = [asyncio.create_task(house.ask(journey=journey)) for journey in journeys]
    await idle()
    assert [stream.journey for stream in house.pipeline.live.values()] == journeys
    assert house.failover.budget.running == 3
    for journey in journeys:
        journey.stop("drained")
    assert [(await task).events[-1] for task in tasks] == [Abort(reason="drained")] * 3
    assert not left_behind(house)


async def test_a_request_that_nobody_can_serve_is_not_live() -> None:
    house = House(scripted("a", [ProviderError(Kind.AUTH, "no")], models=["m"]))
    assert isinstance((await house.ask("nope")).error, RequestError)
    assert isinstance((await house.ask()).error, NoAnswer)
    assert not left_behind(house)


async def test_an_answer_that_nobody_reads_is_closed() -> None:
    house = House(scripted("a", says("a"), models=["m"]))
    journey = Journey("r1", "m")
    async with house.pipeline.answer(request(), Stream(journey)):
        pass
    assert journey.end == "abort"
    assert not left_behind(house)


async def test_a_reader_that_breaks_takes_nobody_with_it() -> None:
    house = House(scripted("a", [A, HANG], says("a"), models=["m"]))
    with pytest.raises(ZeroDivisionError):
        async with house.pipeline.answer(request(), Stream(Journey("r1", "m"))) as events:
            async for _ in events:
                raise ZeroDivisionError
    assert not left_behind(house)
    assert house["a"].circuit._failures == 0
    assert text_of((await house.ask()).events) == "a"


async def test_one_bad_adapter_harms_only_its_own_requests() -> None:
    house = House(
        scripted("bad", [A, RuntimeError("bug")], priority=1),
        scripted("good", says("fine"), priority=1),
    )
    answers = await asyncio.gather(*(house.ask(name) for name in ["bad", "good"] * 10))
    assert [type(answered.events[-1]) for answered in answers] == [Error, Finish] * 10
    assert not left_behind(house)


kinds = st.sampled_from(Kind).map(lambda kind: ProviderError(kind, "scripted", retry_after=None))
steps = st.one_of(st.sampled_from([Start(), A, Finish(), Error(message="own")]), kinds, st.builds(RuntimeError))
scripts = st.lists(st.lists(steps, max_size=4), min_size=1, max_size=4)


def begun_once(script: Played) -> list[Any]:
    """A choice begins once for its reader, however often a provider says so."""
    starts = [at for at, step in enumerate(script) if isinstance(step, Start)]
    return [step for at, step in enumerate(script) if at not in starts[1:]]


@settings(max_examples=100, deadline=None)
@given(scripts, scripts, st.integers(1, 6))
async def test_whatever_providers_do_each_request_has_one_end(one: list[Played], two: list[Played], many: int) -> None:
    """Either one clear error and nothing else, or a part of an answer, all of one attempt, and one true end."""
    logging.disable(logging.ERROR)
    try:
        adapters = scripted("a", *one, models=["m"]), scripted("b", *two, models=["m"], priority=2)
        house = House(*adapters)
        for answered in await asyncio.gather(*(house.ask() for _ in range(many))):
            if answered.error is not None:
                assert answered.events == [], "an error after events, as if nothing had been said"
                assert isinstance(answered.error, NoAnswer)
                continue
            *before, end = answered.events
            assert isinstance(end, Finish | Error), f"no end: {answered.events}"
            assert not any(isinstance(event, Finish | Error | Abort) for event in before), f"two ends: {before} {end}"
            assert isinstance(end, Finish) or any(map(commits, before)), "an error in the stream without an answer"
            assert any(begun_once(script)[: len(before)] == before for script in (*one, *two)), (
                "two attempts were mixed"
            )
            assert answered.journey.end == ("finish" if isinstance(end, Finish) else answered.journey.end)
        assert not left_behind(house)
        attempts = sum(up.meter.tallies["total"].requests for up in house.router)
        assert attempts == sum(len(adapter.calls) for adapter in adapters)
    finally:
        logging.disable(logging.NOTSET)


async def test_stopped_before_anything_is_asked() -> None:
    house = House(scripted("a", says("a"), models=["m"]))
    journey = Journey("r1", "m")
    journey.stop("drained")
    assert isinstance((await house.ask(journey=journey)).error, Stopped)
    assert not left_behind(house)


acts = st.sampled_from(["wait", "gate", "gate", "skip", "stop", "cancel", "leave"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(acts, st.integers(0, 4)), max_size=8), st.integers(0, 3), st.booleans())
async def test_whenever_it_is_ended_it_ends_once(plan: list[tuple[str, int]], tidies: int, slow: bool) -> None:
    """Stops, cancels, time-outs and results in any order, some in one tick, at an adapter that takes long to close."""

    class Gated(Odd):
        async def odd(self) -> AsyncGenerator[Event, None]:
            try:
                yield Start()
                for number in range(3):
                    await gates[number].wait()
                    yield A
                yield Finish()
            finally:
                for _ in range(tidies):
                    await asyncio.sleep(0)

    async def reads() -> None:
        async with house.pipeline.answer(request(), Stream(journey)) as events:
            async for event in events:
                seen.append(event)
                for _ in range(3 * slow):
                    await asyncio.sleep(0)
                if left:
                    return

    gates, seen, left, cancelled = [asyncio.Event() for _ in range(3)], list[Event](), False, False
    adapter = odd(Gated, models=["m"], retry={"max_attempts": 2})
    house, journey = House(adapter), Journey("r1", "m")
    task = asyncio.create_task(reads())
    for act, ticks in plan:
        for _ in range(ticks):
            await asyncio.sleep(0)
        left = left or act == "leave"
        cancelled = cancelled or (act == "cancel" and not task.done())
        match act:
            case "gate":
                next((gate for gate in gates if not gate.is_set()), gates[0]).set()
            case "skip":
                skip(121)
            case "stop":
                journey.stop("drained")
            case "cancel":
                task.cancel()
    journey.stop("the test is over")
    await asyncio.wait([task])
    ends = [event for event in seen if isinstance(event, Finish | Error | Abort)]
    assert ends == seen[-1:] or not ends, f"more than one end, or something after it: {seen}"
    if task.cancelled():
        assert cancelled, "cancelled by nobody"
    else:
        assert not (cancelled and not seen and not task.exception()), "it ended without a word"
        assert ends or left or isinstance(task.exception(), Stopped | NoAnswer), f"no end: {seen} {task.exception()}"
        assert isinstance(task.exception(), Stopped | NoAnswer | None), f"a client is told {task.exception()!r}"
    assert (journey.end == "finish") == any(isinstance(end, Finish) for end in ends), f"{journey.end}, but {seen}"
    assert adapter.closed == len(adapter.calls), "an upstream call was left open"
    assert house["a"].meter.tallies["total"].requests == journey.attempts
    assert task.cancelling() <= cancelled * len(plan), "a cancel of the deadline's own was left on the task"
    assert not left_behind(house)


async def test_several_answer_into_one_stream() -> None:
    house = House(scripted("a", says("one", usage=(3, 1))), scripted("b", says("two", usage=(4, 2))))
    answered = await house.ask(weir={"providers": ["a", "b"]})
    for name, text in (("a", "one"), ("b", "two")):
        events = [event for event in answered.events if event.source == name]
        assert text_of(events) == text, f"{name} did not say its part: {events}"
        assert isinstance(events[-1], SourceEnd), f"{name} has no end"
        assert events[-1].reason == "finish"
    assert answered.events[-1] == Finish(usage=Usage(input_tokens=7, output_tokens=3))
    assert answered.journey.provider == "a,b"
    assert answered.journey.attempts == 2
    assert answered.journey.end == "finish"
    assert not left_behind(house)


async def test_one_of_several_that_fails_does_not_end_the_others() -> None:
    gate = asyncio.Event()
    house = House(
        scripted("bad", [ProviderError(Kind.AUTH, "no")]),
        scripted("breaks", [A, ProviderError(Kind.CUT, "cut")]),
        scripted("good", [A, gate, *says("fine")]),
    )
    asking = asyncio.create_task(house.ask(weir={"providers": ["bad", "breaks", "good"]}))
    await idle()
    gate.set()
    answered = await asking
    ends = {event.source: event.reason for event in answered.events if isinstance(event, SourceEnd)}
    assert ends == {"bad": "error", "breaks": "error", "good": "finish"}
    assert isinstance(answered.events[-1], Finish)
    assert not left_behind(house)


async def test_where_all_of_several_fail_before_they_begin_there_is_no_stream() -> None:
    house = House(
        scripted("a", [ProviderError(Kind.AUTH, "no")]), scripted("b", [ProviderError(Kind.CONNECT, "refused")])
    )
    error = (await house.ask(weir={"providers": ["a", "b"]})).error
    assert isinstance(error, NoAnswer)
    assert set(error.failures) == {"a", "b"}
    assert not left_behind(house)


async def test_where_all_of_several_break_the_stream_is_broken() -> None:
    house = House(*(scripted(name, [A, ProviderError(Kind.CUT, "cut")]) for name in "ab"))
    answered = await house.ask(weir={"providers": ["a", "b"]})
    assert isinstance(answered.events[-1], Error)
    assert answered.journey.end == "error"


async def test_stopping_ends_all_of_several() -> None:
    house = House(*(scripted(name, [A, HANG]) for name in "ab"))
    journey = Journey("r1", "m")
    asking = asyncio.create_task(house.ask(journey=journey, weir={"providers": ["a", "b"]}))
    await idle()
    journey.stop("drained")
    answered = await asking
    assert [event.reason for event in answered.events if isinstance(event, SourceEnd)] == ["abort", "abort"]
    assert isinstance(answered.events[-1], Abort)
    assert not left_behind(house)


@pytest.mark.parametrize(
    ("weir", "param"),
    [
        ({"mode": "nope"}, "weir.mode"),
        ({"mode": "standard", "config": {"x": 1}}, "weir.config.x"),
        ({"providers": ["a", "a"]}, "weir.providers"),
    ],
)
async def test_a_wrong_wish_names_its_field(weir: dict[str, Any], param: str) -> None:
    house = House(scripted("a", says("a"), models=["m"]))
    try:
        error = (await house.ask(weir=weir)).error
    except RequestError as caught:  # the request itself is not valid
        error = caught
    assert isinstance(error, RequestError)
    assert error.param == param
    assert not left_behind(house)


async def test_monitors_are_told_and_harm_nobody(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, ...]] = []

    class Watches(Monitor):
        def began(self, journey: Journey) -> None:
            told.append(("began", journey.provider))

        def ended(self, journey: Journey) -> None:
            told.append(("ended", journey.provider, journey.end))

    class Raises(Monitor):
        def ended(self, journey: Journey) -> None:
            raise ZeroDivisionError

    house = House(scripted("a", says("a"), models=["m"]))
    house.registry.add_monitor(Raises())
    house.registry.add_monitor(Watches())
    assert text_of((await house.ask()).events) == "a"
    assert told == [("began", "none"), ("ended", "a", "finish")]
    assert "Raises" in caplog.text


async def test_what_has_ended_is_known_for_a_while() -> None:
    house = House(scripted("a", says("a"), models=["m"]))
    stream = Stream(Journey("r1", "m"))
    async with house.pipeline.answer(request(), stream) as events:
        assert house.pipeline.find(stream.id) is stream
        async for _ in events:
            pass
    assert house.pipeline.find(stream.id) is stream
    assert house.pipeline.find("other") is None


async def test_what_is_no_event_is_the_adapters_fault_also_after_the_first_token() -> None:
    class Talks(Odd):
        async def odd(self) -> AsyncGenerator[Event, None]:
            yield A
            yield "text"  # type: ignore[misc]

    house = House(odd(Talks, models=["m"]))
    answered = await house.ask()
    assert isinstance(answered.events[-1], Error)
    assert "an adapter yields events" in answered.events[-1].message
    assert house["a"].meter.tallies["total"].failures == {Kind.SERVER: 1}


async def test_a_mode_that_fails_is_told_as_what_it_is() -> None:
    class Fails(StreamingGenerator):
        async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
            async for event in merge:
                yield event
                raise ZeroDivisionError

    house = House(scripted("a", [Start(), A, HANG], models=["m"]))
    house.registry.add_mode("fails", Fails)
    answered = await house.ask(weir={"mode": "fails"})
    assert isinstance(answered.events[-1], Error)
    assert answered.journey.end == "error:mode"
    assert not house["a"].meter.tallies["total"].failures, "the provider was blamed"
    assert not left_behind(house)


async def test_what_is_remembered_of_a_stream_does_not_keep_its_request() -> None:
    """A thousand of them may be remembered, each with a request of many megabytes."""

    class Fails(Odd):
        async def odd(self) -> AsyncGenerator[Event, None]:
            if self.config.provider_id == "b":
                yield A
            raise ProviderError(Kind.AUTH, "no")

    async def reads(asked: ChatRequest) -> None:
        async with house.pipeline.answer(asked, stream) as events:
            assert [type(event) async for event in events] == [TextDelta, Error]
        raise ZeroDivisionError

    house = House(odd(Fails, "a", models=["m"]), odd(Fails, "b", models=["m"], priority=200))
    asked, stream = request(), Stream(Journey("r1", "m"))
    kept = weakref.ref(asked)
    reading = asyncio.create_task(reads(asked))
    await asyncio.wait([reading])
    assert isinstance(reading.exception(), ZeroDivisionError)
    del asked, reading
    gc.collect()
    assert kept() is None
    assert house.pipeline.find(stream.id) is stream


async def test_one_source_goes_by_its_provider_in_every_mode() -> None:
    for mode in GeneratorMode:
        house = House(scripted("a", says("a"), models=["m"]))
        async with house.pipeline.answer(request(weir={"mode": mode}), Stream(Journey("r1", "m"))) as events:
            assert {event.source async for event in events} == {"a"}, f"in mode {mode}"


@pytest.mark.parametrize(
    ("providers", "source", "rated"),
    [(["m", "b"], "m", ["a"]), (["a", "b"], "b", ["b"]), ([], None, ["a"]), ([], "a", ["a"]), ([], "b", [])],
)
async def test_a_rating_is_for_who_has_answered(providers: list[str], source: str | None, rated: list[str]) -> None:
    house = House(scripted("a", says("a"), models=["m"]), scripted("b", says("b")))
    stream = Stream(Journey("r1", "m"))
    async with house.pipeline.answer(request(weir={"providers": providers}), stream) as events:
        assert [event async for event in events]
    await house.pipeline.note(stream, Feedback(stream_id=stream.id, rating="up", source=source))
    assert [up.id for up in house.router if up.meter.tallies["total"].others] == rated
