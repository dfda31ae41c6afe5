"""The whole journey: whatever happens on it, it ends, and nothing is left behind."""

import asyncio
import logging
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import Kind, NoAnswer, ProviderError, RequestError, Stopped
from proxy.events import Abort, Error, Event, Finish, Start, TextDelta, commits
from proxy.journey import Journey
from proxy.testing import Played, says, scripted, text_of
from tests.journeys import HANG, House, Odd, idle, odd, request, skip

pytestmark = pytest.mark.anyio

A = TextDelta(content="a")


def left_behind(house: House) -> list[str]:
    """What should not be there when all requests are over."""
    found = [f"{up.id} counts as active" for up in house.router if up.active or up.meter.active]
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
    assert house.pipeline.live == set(journeys)
    assert house.failover.budget.running == 3
    for journey in list(house.pipeline.live):
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
    async with house.pipeline.answer(request(), journey):
        pass
    assert journey.end == "abort"
    assert not left_behind(house)


async def test_a_reader_that_breaks_takes_nobody_with_it() -> None:
    house = House(scripted("a", [A, HANG], says("a"), models=["m"]))
    with pytest.raises(ZeroDivisionError):
        async with house.pipeline.answer(request(), Journey("r1", "m")) as events:
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
            assert any(list(script)[: len(before)] == before for script in (*one, *two)), "two attempts were mixed"
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
        async with house.pipeline.answer(request(), journey) as events:
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
