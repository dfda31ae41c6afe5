"""Try them until one commits: what is retried, what falls back, how long is waited, and what the client is told."""

import asyncio
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.circuit import EJECTION
from proxy.errors import Kind, NoAnswer, ProviderError, RequestError
from proxy.events import Abort, Error, Start, TextDelta
from proxy.journey import Journey
from proxy.pipeline.failover import RetryBudget, Sleep
from proxy.testing import Played, ScriptedAdapter, says, scripted, text_of
from tests.journeys import HANG, Answered, House, idle, skip

pytestmark = pytest.mark.anyio

RETRIED = (Kind.RATE_LIMIT, Kind.BUSY, Kind.SERVER, Kind.CONNECT, Kind.CUT, Kind.GARBLED, Kind.TIMEOUT)
FINAL = (Kind.AUTH, Kind.CONFIG, Kind.MISSING, Kind.REJECTED)


def no(kind: Kind = Kind.SERVER, **fields: Any) -> list[Any]:
    """A script that fails before anything was said; fresh, as it would be."""
    return [Start(), ProviderError(kind, f"said {kind}", **fields)]


def a(*scripts: Played, **config: Any) -> ScriptedAdapter:
    return scripted("a", *scripts, **{"models": ["m"], "priority": 1, **config})


def b(*scripts: Played, **config: Any) -> ScriptedAdapter:
    return scripted("b", *(scripts or (says("b"),)), **{"models": ["m"], "priority": 2, **config})


def calls(house: House) -> str:
    """How often each was asked."""
    return " ".join(f"{up.id}{len(up.adapter.calls)}" for up in house.router)  # type: ignore[attr-defined]


def failure(answered: Answered) -> NoAnswer:
    assert isinstance(answered.error, NoAnswer), f"no clear error, but {answered.error!r} and {answered.events}"
    return answered.error


# What is retried, what falls back.


@pytest.mark.parametrize("kind", RETRIED)
async def test_what_may_pass_is_retried(kind: Kind) -> None:
    house = House(a(no(kind), no(kind), says("hi")))
    answered = await house.ask()
    assert answered.events == says("hi"), f"{kind} was not retried, or something of a failed attempt was shown"
    assert answered.journey.attempts == 3
    assert len(house.slept) == 2


@pytest.mark.parametrize("kind", FINAL)
async def test_what_cannot_pass_is_not(kind: Kind) -> None:
    house = House(a(no(kind), says("hi")))
    failure(await house.ask())
    assert calls(house) == "a1", f"{kind} was asked for again"


def test_every_kind_is_one_of_them() -> None:
    assert {*RETRIED, *FINAL} == set(Kind)


async def test_an_exception_of_the_adapter_is_retried_like_a_500() -> None:
    house = House(a([RuntimeError("bug")], says("hi")))
    assert text_of((await house.ask()).events) == "hi"


async def test_a_stream_that_ends_before_it_begins_is_retried() -> None:
    house = House(a([Start()], says("hi")))
    assert text_of((await house.ask()).events) == "hi"


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.REJECTED])
async def test_then_the_next_provider(kind: Kind) -> None:
    house = House(a(no(kind)), b())
    answered = await house.ask()
    assert text_of(answered.events) == "b", f"{kind} did not fall back"
    assert answered.journey.provider == "b"
    assert list(answered.journey.failures) == ["a"]
    assert calls(house) == ("a1 b1" if kind in FINAL else "a3 b1")


async def test_the_clients_own_mistake_is_told_at_once() -> None:
    house = House(a(no(Kind.REJECTED, upstream_status=422)), b())
    error = failure(await house.ask())
    assert calls(house) == "a1 b0", "a request that is wrong was asked of somebody else, too"
    assert (error.status, error.message) == (422, "said rejected")


@pytest.mark.parametrize(("kind", "blamed"), [(Kind.AUTH, 1), (Kind.CONFIG, 1), (Kind.MISSING, 0), (Kind.REJECTED, 0)])
async def test_a_wrong_key_of_ours_counts_against_the_circuit(kind: Kind, blamed: int) -> None:
    house = House(a(no(kind)), b())
    await house.ask()
    assert house["a"].circuit._failures == blamed


async def test_everybody_is_heard_in_the_error() -> None:
    house = House(a(no(Kind.SERVER, upstream_status=503)), b(no(Kind.CONNECT)))
    error = failure(await house.ask())
    assert error.status == 502
    assert error.message == "no provider could answer: a: server 503 (said server); b: connect (said connect)"


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_a_provider_says_how_often_it_may_be_asked(attempts: int) -> None:
    house = House(a(no(Kind.BUSY), retry={"max_attempts": attempts}))
    failure(await house.ask())
    assert calls(house) == f"a{attempts}"


async def test_a_request_may_say_otherwise() -> None:
    house = House(a(no()), b())
    failure(await house.ask(weir={"retry": {"max_attempts": 1}, "fallback": False}))
    assert calls(house) == "a1 b0"


async def test_a_model_that_nobody_serves_asks_nobody() -> None:
    answered = await House(a()).ask("nope")
    assert isinstance(answered.error, RequestError)
    assert answered.journey.attempts == 0


# The commit point.


async def test_after_the_commit_there_is_no_silent_retry() -> None:
    house = House(a([Start(), TextDelta(content="half"), ProviderError(Kind.CUT, "broke")]), b())
    answered = await house.ask()
    assert [type(event) for event in answered.events] == [Start, TextDelta, Error]
    assert calls(house) == "a1 b0"


# Waiting.


async def test_backoff_grows_with_full_jitter_up_to_its_maximum() -> None:
    waits: list[list[float]] = []
    for _ in range(60):
        house = House(a(no(Kind.BUSY), retry={"max_attempts": 6, "initial": 1, "maximum": 4}))
        await house.ask()
        waits.append(house.slept)
    for number, most in enumerate([1, 2, 4, 4, 4]):
        column = [wait[number] for wait in waits]
        assert 0 <= min(column) < most / 4, f"jitter begins at 0, not at {min(column)}"
        assert most / 2 < max(column) <= most, f"wait {number} goes up to {most} s, not {max(column)}"


async def test_retry_after_is_waited_for_when_nobody_else_is_there() -> None:
    house = House(a(no(Kind.RATE_LIMIT, retry_after=3), says("hi"), retry={"initial": 0.1}))
    assert text_of((await house.ask()).events) == "hi"
    assert house.slept == [3]


@pytest.mark.parametrize("kind", [Kind.SERVER, Kind.BUSY])
async def test_of_whatever_kind_the_failure_is(kind: Kind) -> None:
    house = House(a(no(kind, retry_after=3), says("hi"), retry={"initial": 0}))
    await house.ask()
    assert house.slept == [3]


async def test_too_long_a_retry_after_is_not_waited_for() -> None:
    house = House(a(no(Kind.RATE_LIMIT, retry_after=9, upstream_status=429), retry={"maximum": 8}))
    error = failure(await house.ask())
    assert (house.slept, calls(house)) == ([], "a1")
    assert (error.status, error.headers) == (429, {"retry-after": "9"})


async def test_with_others_there_nobody_waits() -> None:
    house = House(a(no(Kind.RATE_LIMIT, retry_after=3)), b())
    assert text_of((await house.ask()).events) == "b"
    assert (house.slept, calls(house)) == ([], "a1 b1")
    await house.ask()
    assert calls(house) == "a1 b2", "a provider that rests was asked"
    house.clock.now += 3
    await house.ask()
    assert calls(house) == "a2 b3"


async def test_when_all_rest_the_client_is_told_how_long() -> None:
    house = House(a(no(Kind.RATE_LIMIT, retry_after=20)), b(no(Kind.RATE_LIMIT, retry_after=12)))
    failure(await house.ask())
    house.clock.now += 2
    error = failure(await house.ask())
    assert calls(house) == "a1 b1", "asked while it rested"
    assert (error.status, error.headers) == (429, {"retry-after": "10"})
    assert error.failures["b"].message == "asked for 10.0 s of rest"


async def test_a_short_rest_is_waited_out() -> None:
    house = House(a(no(Kind.RATE_LIMIT, retry_after=20), says("hi"), retry={"initial": 0}))
    failure(await house.ask())
    house.clock.now += 15
    assert text_of((await house.ask()).events) == "hi"
    assert house.slept == [pytest.approx(5)]


async def test_a_process_that_was_asleep_goes_on_where_it_was() -> None:
    """The machine was suspended during the back-off: that is no reason to drop the request."""
    house = House(a(no(Kind.BUSY), says("hi")))

    async def suspended(seconds: float) -> None:
        waking = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(seconds, waking.set_result, None)
        skip(seconds + 3600)
        await waking

    house.failover._sleep = suspended
    assert text_of((await house.ask()).events) == "hi"
    assert house.failover.budget.retrying == 0


# Being stopped, and being cancelled.


async def hangs(seconds: float) -> None:
    await HANG.wait()


async def stopped_in(house: House) -> Answered:
    journey = Journey("r1", "m")
    task = asyncio.create_task(house.ask(journey=journey))
    await idle()
    journey.stop("drained")
    return await task


async def test_stopped_during_the_backoff() -> None:
    house = House(a(no(), says("hi")))
    house.failover._sleep = hangs
    answered = await stopped_in(house)
    assert answered.error is not None
    assert (answered.error.code, answered.error.message) == ("stopped", "drained")
    assert answered.journey.end == "abort"
    assert (calls(house), house.failover.budget.retrying) == ("a1", 0)


async def test_stopped_before_the_first_token_asks_nobody_else() -> None:
    house = House(a([HANG]), b())
    answered = await stopped_in(house)
    assert answered.error is not None
    assert answered.error.code == "stopped"
    assert calls(house) == "a1 b0"


async def test_stopped_after_the_commit() -> None:
    answered = await stopped_in(House(a([TextDelta(content="half"), HANG]), b()))
    assert answered.events[-1] == Abort(reason="drained")


async def test_a_cancel_during_the_backoff_passes() -> None:
    house = House(a(no(), says("hi")))
    house.failover._sleep = hangs
    task = asyncio.create_task(house.ask())
    await idle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert house.failover.budget.retrying == 0, "a retry that never came is still counted"


# Circuits.


def left_out(*adapters: ScriptedAdapter) -> House:
    """`a` was left out, and its pause is over."""
    house = House(*adapters)
    house.open_circuit("a")
    house.clock.now += EJECTION * 1.1
    return house


async def test_a_provider_that_keeps_failing_is_left_out() -> None:
    house = House(a(no()), b())
    for _ in range(3):
        assert text_of((await house.ask()).events) == "b"
    assert calls(house) == "a5 b3", "five failures in a row are enough, also in the middle of retries"
    await house.ask()
    assert calls(house) == "a5 b4"


async def test_the_probe_that_succeeds_brings_it_back() -> None:
    house = left_out(a(says("a")), b())
    generation = house["a"].circuit.generation
    assert text_of((await house.ask()).events) == "a"
    assert not house["a"].circuit.verdict.open
    assert house.probes.log == [("claim", "a", generation)]
    await house.ask()
    assert len(house.probes.log) == 1, "a provider in service needs no probe"


async def test_the_probe_that_fails_is_one_attempt_and_the_client_does_not_notice() -> None:
    house = left_out(a(no()), b())
    assert text_of((await house.ask()).events) == "b"
    assert calls(house) == "a1 b1", "a probe is one attempt, not as many as retries allow"
    assert house["a"].circuit.verdict.ejections == 2
    assert [what for what, *_ in house.probes.log] == ["claim"], "a probe that told something is not given back"


async def test_while_one_probes_others_go_past() -> None:
    gate = asyncio.Event()
    house = left_out(a([gate, *says("a")]), b())
    probe = asyncio.create_task(house.ask())
    await idle()
    assert text_of((await house.ask()).events) == "b"
    gate.set()
    assert text_of((await probe).events) == "a"


async def test_while_another_replica_probes_we_go_past_and_do_not_keep_asking() -> None:
    house = left_out(a(says("a")), b())
    house.probes.free = False
    for _ in range(2):
        assert text_of((await house.ask()).events) == "b"
    assert len(house.probes.log) == 1, "every request asked Redis for the probe"
    house.probes.free = True
    house.clock.now += 1
    assert text_of((await house.ask()).events) == "a"


@pytest.mark.parametrize("kind", [Kind.REJECTED, Kind.RATE_LIMIT, Kind.BUSY, Kind.MISSING])
async def test_a_probe_that_told_nothing_is_given_back(kind: Kind) -> None:
    house = left_out(a(no(kind), says("a")), b())
    generation = house["a"].circuit.generation
    await house.ask()
    assert house.probes.log == [("claim", "a", generation), ("release", "a", generation)]
    assert text_of((await house.ask()).events) == "a"


@pytest.mark.parametrize("how", ["cancel", "stop"])
async def test_a_probe_that_is_ended_is_given_back(how: str) -> None:
    house = left_out(a([HANG], says("a")), b())
    journey = Journey("r1", "m")
    task = asyncio.create_task(house.ask(journey=journey))
    await idle()
    assert house["a"].circuit.probe is journey
    task.cancel() if how == "cancel" else journey.stop("drained")
    await asyncio.wait([task])
    assert [what for what, *_ in house.probes.log] == ["claim", "release"]
    assert text_of((await house.ask()).events) == "a"


async def test_a_request_cancelled_while_it_asks_for_the_probe_leaves_no_trace() -> None:
    house = left_out(a(says("a")), b())
    house.probes.answer = asyncio.Event()
    task = asyncio.create_task(house.ask())
    await idle()
    task.cancel()
    await asyncio.wait([task])
    assert house["a"].circuit.probe is None, "nobody will ever probe this provider again"
    house.probes.answer = None
    house.clock.now += 1
    assert text_of((await house.ask()).events) == "a"


async def test_anothers_probe_is_not_given_back_by_who_is_asked_besides() -> None:
    """Everybody is left out, so a second request is asked too; it is not the probe, and it leaves the probe alone."""
    house = left_out(a([HANG], [HANG]))
    first, second = Journey("r1", "m"), Journey("r2", "m")
    tasks = [asyncio.create_task(house.ask(journey=first))]
    await idle()
    tasks.append(asyncio.create_task(house.ask(journey=second)))
    await idle()
    assert calls(house) == "a2", "where nobody else is there, it is better to ask than to refuse"
    second.stop("left")
    await tasks[1]
    assert house["a"].circuit.probe is first
    assert [what for what, *_ in house.probes.log] == ["claim"]
    first.stop("left")
    await tasks[0]
    assert [what for what, *_ in house.probes.log] == ["claim", "release"]


async def test_all_left_out_and_the_soonest_due_is_tried() -> None:
    house = House(a(says("a")), b())
    house.open_circuit("b")
    house.clock.now += 10
    house.open_circuit("a")
    assert text_of((await house.ask()).events) == "b", "the one that is due first"
    assert not house["b"].circuit.verdict.open, "it answered: it is back"
    assert house.probes.log == []


async def test_who_was_left_out_meanwhile_is_passed_over() -> None:
    gate = asyncio.Event()
    house = House(a([gate, *no(Kind.MISSING)]), b(), scripted("c", says("c"), models=["m"], priority=3))
    task = asyncio.create_task(house.ask())
    await idle()
    house.open_circuit("b")
    gate.set()
    assert text_of((await task).events) == "c"


async def test_nobody_is_left_to_hope_for_when_the_others_are_left_out() -> None:
    """The longer patience is for the last one who can be asked, wherever in the order that one stands."""
    gate = asyncio.Event()
    house = House(a([gate, *no(Kind.RATE_LIMIT, retry_after=2.0)], says("a")), b())
    task = asyncio.create_task(house.ask())
    await idle()
    house.open_circuit("b")
    gate.set()
    assert text_of((await task).events) == "a", "it was given up although nobody else could be asked"
    assert house.slept == [2.0]


async def test_results_from_before_an_opening_do_not_count() -> None:
    gate = asyncio.Event()
    house = House(a([gate, *says("a")], no()), b())
    task = asyncio.create_task(house.ask())
    await idle()
    for _ in range(2):
        await house.ask()
    assert house["a"].circuit.verdict.open
    gate.set()
    assert text_of((await task).events) == "a"
    assert house["a"].circuit.verdict.open, "an answer that was asked for before the opening closed it"


async def test_clients_who_leave_and_slow_ones_never_trip() -> None:
    house = House(a([TextDelta(content="half"), HANG]), b())
    for _ in range(10):
        task = asyncio.create_task(house.ask())
        await idle()
        task.cancel()
        await asyncio.wait([task])
    assert house["a"].circuit.usable(house.clock())
    assert house["a"].meter.tallies["total"].cancelled == 10


# The budget.


@pytest.mark.parametrize(("running", "most"), [(0, 3), (1, 3), (15, 3), (16, 3), (19, 3), (20, 4), (104, 20)])
def test_the_budget_is_a_fifth_and_three_at_least(running: int, most: int) -> None:
    budget = RetryBudget()
    budget.running = running
    allowed: Iterator[int] = (n for n in range(100) if setattr(budget, "retrying", n) or budget(None))  # type: ignore[func-returns-value,arg-type]
    assert next(allowed) == most


@pytest.mark.parametrize(("requests", "most"), [(10, 3), (30, 6)])
async def test_few_retries_at_once_and_fallback_is_not_held_back(requests: int, most: int) -> None:
    """All fail at the same moment; those that may not retry fall back at once."""
    gate, waiting = asyncio.Event(), asyncio.Event()
    house = House(a(*[[gate, *no(Kind.BUSY)]] * requests, says("a")), b())
    at_once: list[int] = []

    async def pauses(seconds: float) -> None:
        at_once.append(house.failover.budget.retrying)
        await waiting.wait()

    house.failover._sleep = pauses
    tasks = [asyncio.create_task(house.ask()) for _ in range(requests)]
    await idle()
    gate.set()
    await idle()
    assert len(at_once) == most, f"{len(at_once)} of {requests} requests wait to retry; {most} may"
    waiting.set()
    heard = Counter(text_of(answered.events) for answered in await asyncio.gather(*tasks))
    assert heard == {"a": most, "b": requests - most}
    assert house.failover.budget.retrying == 0


async def test_the_budget_is_free_again_after_every_kind_of_end() -> None:
    for script in (no(), says("hi"), no(Kind.REJECTED), [RuntimeError("bug")]):
        house = House(a(no(Kind.BUSY), script))
        await house.ask()
        assert house.failover.budget.retrying == 0


# Providers that leave.


def until(gate: asyncio.Event) -> Sleep:
    async def sleeps(seconds: float) -> None:
        await gate.wait()

    return sleeps


async def test_a_provider_replaced_during_the_backoff_serves_its_request_to_the_end() -> None:
    class Closes(ScriptedAdapter):
        closes = 0

        async def close(self) -> None:
            self.closes += 1

    adapter = a(no(Kind.BUSY), says("hi"))
    adapter.__class__ = Closes
    house, gate = House(adapter), asyncio.Event()
    house.failover._sleep = until(gate)
    task = asyncio.create_task(house.ask())
    await idle()
    await house.router.remove("a")
    assert adapter.closes == 0, "closed while a request was about to ask again"  # type: ignore[attr-defined]
    gate.set()
    assert text_of((await task).events) == "hi"
    await idle()
    assert adapter.closes == 1  # type: ignore[attr-defined]


async def test_no_attempt_is_counted_twice_or_not_at_all() -> None:
    house = House(a(no(), no(Kind.CONNECT), no(Kind.CUT)), b(no(Kind.BUSY), says("b")))
    answered = await house.ask()
    assert answered.journey.attempts == 5
    assert {up.id: up.meter.tallies["total"].failures for up in house.router} == {
        "a": {"server": 1, "connect": 1, "cut": 1},
        "b": {"busy": 1},
    }
    assert house["b"].meter.tallies["total"].successes == 1
    assert all(up.meter.active == 0 for up in house.router)
    assert not math.isinf(house["a"].due())
