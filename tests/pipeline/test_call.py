"""One attempt: its limits are kept, its end is never a lie, and it is counted exactly once."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import proxy.pipeline.call
from proxy.adapter import BaseProviderAdapter
from proxy.errors import Kind, ProviderError, Stopped
from proxy.events import Abort, Error, Event, Finish, FinishStep, ReasoningDelta, Start, TextDelta, Usage, Vendor
from proxy.journey import Journey
from proxy.pipeline.call import Call
from proxy.testing import Played, play, says, scripted
from proxy.upstream import Upstream
from tests.journeys import HANG, Clock, Odd, idle, odd, request, skip

pytestmark = pytest.mark.anyio

A, B = TextDelta(content="a"), TextDelta(content="b")
BROKE = ProviderError(Kind.CUT, "the connection broke")
KEY = "sk-very-secret-1"


class Attempt:
    """A call at an upstream of its own, and what became of it."""

    def __init__(self, adapter: BaseProviderAdapter, **fields: Any):
        self.adapter: Any = adapter
        self.upstream = Upstream(adapter.config, adapter, clock=Clock())
        self.journey = Journey("r1", "m")
        self.call = Call(self.upstream, "m", request(**fields), self.journey)
        self.seen: list[Event] = []

    async def read(self) -> list[Event]:
        """Everything a reader sees, or the error that kept it from seeing anything."""
        await self.call.open()
        async for event in self.call.events():
            self.seen.append(event)
        return self.seen

    @property
    def counted(self) -> dict[str, Any]:
        """How it was counted; nothing may be left running."""
        assert self.upstream.meter.active == 0, "it still counts as running"
        tally = self.upstream.meter.tallies["total"]
        assert tally.requests == 1, f"counted {tally.requests} times"
        outcome = {"success": tally.successes, "cancelled": tally.cancelled, **tally.failures}
        (kind,) = [name for name, count in outcome.items() if count]
        return {kind: self.journey.end}

    @property
    def blamed(self) -> int:
        """Failures that the circuit has counted."""
        return self.upstream.circuit._failures


def attempt(*script: Event | Exception | asyncio.Event, **config: Any) -> Attempt:
    return Attempt(scripted("a", script, **config))


def end_of(events: Sequence[Event]) -> Event:
    """The end, of which there must be exactly one."""
    ends = [event for event in events if isinstance(event, Finish | Error | Abort)]
    assert ends == list(events[-1:]), f"a stream has one end, and it comes last: {events}"
    return ends[0]


async def reading(it: Attempt) -> "asyncio.Task[list[Event]]":
    """A reader who has seen what there is to see."""
    task = asyncio.create_task(it.read())
    await idle()
    return task


# The commit point.


async def test_a_whole_answer_comes_as_it_is_and_counts_as_success() -> None:
    it = attempt(*says("a", "b", usage=(5, 2)))
    assert await it.read() == says("a", "b", usage=(5, 2))
    assert it.counted == {"success": "finish"}
    tally = it.upstream.meter.tallies["total"]
    assert (tally.input_tokens, tally.output_tokens) == (5, 2)
    assert it.journey.usage == Usage(input_tokens=5, output_tokens=2)


@pytest.mark.parametrize(
    "first",
    [A, ReasoningDelta(content="hm"), Vendor(answer=True), Finish()],
    ids=["text", "reasoning", "vendor", "finish"],
)
async def test_the_first_part_of_an_answer_commits(first: Event) -> None:
    it = attempt(Start(), first, HANG)
    async with asyncio.timeout(1):
        await it.call.open()
    await it.call.close()


@pytest.mark.parametrize("before", [[], [Start()], [Start(), Vendor()], [Start(), Usage(), FinishStep(reason="stop")]])
async def test_nothing_before_it_commits(before: list[Event]) -> None:
    it = attempt(*before, BROKE)
    with pytest.raises(ProviderError, match="broke"):
        await it.read()
    assert it.seen == [], "something of an attempt that failed was shown"
    assert it.counted == {"cut": "error:cut"}


# Ends.


async def test_a_break_after_it_is_one_error() -> None:
    it = attempt(Start(), A, BROKE)
    assert await it.read() == [Start(), A, Error(message="a: the connection broke", code="provider_error")]
    assert it.counted == {"cut": "error:cut"}
    assert it.blamed == 1


@pytest.mark.parametrize("script", [[], [Start()]])
async def test_an_end_without_an_end_before_it_is_a_cut(script: list[Event]) -> None:
    it = attempt(*script)
    with pytest.raises(ProviderError) as caught:
        await it.read()
    assert caught.value.kind is Kind.CUT


async def test_an_end_without_an_end_after_it_is_a_cut_too() -> None:
    it = attempt(Start(), A, FinishStep(reason="stop"))
    assert isinstance(end_of(await it.read()), Error), "a stream without Finish was passed off as complete"
    assert it.counted == {"cut": "error:cut"}


@pytest.mark.parametrize("own", [Error(message="overloaded"), Abort(reason="tired")])
async def test_an_adapter_that_says_an_end_of_its_own_has_failed(own: Event) -> None:
    it = attempt(Start(), own, *says("more"))
    with pytest.raises(ProviderError, match=r"its adapter said"):
        await it.read()
    it = attempt(Start(), A, own, *says("more"))
    assert isinstance(end_of(await it.read()), Error)
    assert it.counted == {"server": "error:server"}


async def test_what_comes_after_the_finish_is_not_heard() -> None:
    it = attempt(*says("a"), B, Finish(), RuntimeError("late"))
    assert await it.read() == says("a")
    assert it.counted == {"success": "finish"}


async def test_an_answer_without_a_word_is_an_answer() -> None:
    it = attempt(*says())
    assert await it.read() == says()
    assert it.counted == {"success": "finish"}


kinds = st.sampled_from(Kind).map(lambda kind: ProviderError(kind, "scripted"))
steps = st.one_of(
    st.sampled_from([Start(), A, B, Usage(), FinishStep(reason="stop"), Vendor(), Vendor(answer=True)]),
    st.sampled_from([Finish(), Finish(usage=Usage(input_tokens=1)), Error(message="own"), Abort(reason="own")]),
    kinds,
    st.sampled_from([RuntimeError("bug"), KeyError("bug"), TimeoutError(), OSError("gone")]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=8), st.integers(0, 8))
async def test_every_stream_has_exactly_one_end_and_one_count(script: Played, leaves_after: int) -> None:
    it = attempt(*script)
    try:
        await it.call.open()
    except ProviderError:
        assert it.journey.end.startswith("error:")
    else:
        async with aclosing(it.call.events()) as events:
            async for event in events:
                it.seen.append(event)
                if len(it.seen) == leaves_after:
                    break
        told = [event for event in it.seen if isinstance(event, Finish | Error | Abort)]
        if leaves_after and len(it.seen) == leaves_after and not told:
            assert it.journey.end == "abort"
        else:
            end = end_of(it.seen)
            complete = it.journey.end == "finish"
            assert isinstance(end, Finish) == complete, f"{end} was told of a stream that ended in {it.journey.end}"
            assert not complete or end in script, "a Finish that the provider never sent"
        heard = [event for event in it.seen if not isinstance(event, Error | Abort)]
        assert heard == list(script)[: len(heard)], "events were lost, doubled or reordered"
    assert it.counted


# Limits.


async def test_the_first_token_has_a_limit() -> None:
    it = attempt(Start(), HANG, timeouts={"first_token": 0.02})
    with pytest.raises(ProviderError, match="no end to the wait for the first token") as caught:
        await it.read()
    assert caught.value.kind is Kind.TIMEOUT
    assert it.counted == {"timeout": "error:timeout"}
    assert it.blamed == 1


async def test_making_the_adapter_ready_counts_towards_it() -> None:
    class Never(Odd):
        async def create_model(self) -> None:
            await HANG.wait()

    it = Attempt(odd(Never, timeouts={"first_token": 0.02}))
    with pytest.raises(ProviderError) as caught:
        await it.read()
    assert caught.value.kind is Kind.TIMEOUT


async def test_so_have_the_tokens_between() -> None:
    it = attempt(Start(), A, HANG, timeouts={"between_tokens": 0.02})
    end = end_of(await it.read())
    assert isinstance(end, Error)
    assert "no end to the wait for the next token" in end.message
    assert it.counted == {"timeout": "error:timeout"}


async def test_a_request_may_have_limits_of_its_own() -> None:
    it = Attempt(scripted("a", [Start(), A, HANG]), weir={"timeouts": {"between_tokens": 0.02}})
    assert isinstance(end_of(await it.read()), Error)


async def test_and_all_of_it() -> None:
    gates = [asyncio.Event() for _ in range(4)]
    it = attempt(A, *(step for gate in gates for step in (gate, B)), *says(), timeouts={"total": 100})
    task = await reading(it)
    for gate in gates[:3]:
        skip(30)
        gate.set()
        await idle()
    assert len(it.seen) == 4, f"three waits of 30 s are within 100 s: {it.seen}"
    skip(30)
    assert isinstance(end_of(await task), Error), "four are not"
    assert it.counted == {"timeout": "error:timeout"}


async def test_a_slow_reader_uses_up_no_limit() -> None:
    it = attempt(*says("a", "b", "c"), timeouts={"first_token": 5, "between_tokens": 5, "total": 10})
    await it.call.open()
    async for event in it.call.events():
        it.seen.append(event)
        skip(1000)
        await idle()
    assert it.seen == says("a", "b", "c")
    assert it.counted == {"success": "finish"}


async def test_not_even_after_an_error() -> None:
    it = attempt(Start(), A, BROKE, timeouts={"between_tokens": 5})
    await it.call.open()
    async for event in it.call.events():
        it.seen.append(event)
        skip(6)
        await idle()  # a timer that was left behind would cancel us here
    assert isinstance(end_of(it.seen), Error)


# Readers who leave.


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_a_reader_who_leaves_is_no_failure(after: int) -> None:
    class Long(Odd):
        async def odd(self) -> AsyncGenerator[Event, None]:
            for event in says("a", "b"):
                yield event

    it = Attempt(odd(Long))
    await it.call.open()
    async with aclosing(it.call.events()) as events:
        for _ in range(after):
            await anext(events)
    assert it.adapter.closed == 1, "the upstream call was left open"
    assert it.counted == {"cancelled": "abort"}
    assert it.blamed == 0


async def test_a_reader_who_leaves_with_the_finish_has_heard_everything() -> None:
    it = attempt(*says("a", usage=(5, 2)))
    await it.call.open()
    async with aclosing(it.call.events()) as events:
        async for event in events:
            if isinstance(event, Finish):
                break
    assert it.counted == {"success": "finish"}
    assert it.upstream.meter.tallies["total"].output_tokens == 2


async def test_a_reader_who_never_begins_is_counted_by_close() -> None:
    it = attempt(*says("a"))
    await it.call.open()
    await it.call.events().aclose()
    await it.call.close()
    await it.call.close()
    assert it.counted == {"cancelled": "abort"}


@pytest.mark.parametrize("script", [[Start(), HANG], [Start(), A, HANG]], ids=["before", "after the commit"])
async def test_anothers_cancel_passes_through(script: list[Any]) -> None:
    it = attempt(*script)
    task = await reading(it)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert it.counted == {"cancelled": "abort"}
    assert it.blamed == 0
    assert not any(isinstance(event, Abort) for event in it.seen)


async def test_anothers_cancel_passes_through_while_the_connection_is_put_back() -> None:
    it = attempt(*says("a"), HANG)
    task = await reading(it)
    assert isinstance(end_of(it.seen), Finish), "the Finish must not wait for that"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert it.counted == {"success": "finish"}


# Being stopped.


async def stopped(it: Attempt, told: Callable[[Attempt], object]) -> None:
    task = await reading(it)
    told(it)
    await task


def stop(it: Attempt) -> None:
    it.journey.stop("the server shuts down")


async def test_stopped_before_the_first_token() -> None:
    it = attempt(Start(), HANG)
    with pytest.raises(Stopped, match="the server shuts down"):
        await stopped(it, stop)
    assert it.counted == {"cancelled": "abort"}
    assert it.blamed == 0


async def test_stopped_between_tokens() -> None:
    it = attempt(Start(), A, HANG)
    await stopped(it, stop)
    assert it.seen == [Start(), A, Abort(reason="the server shuts down")]
    assert it.counted == {"cancelled": "abort"}


async def test_stopped_a_tick_after_a_timeout() -> None:
    it = attempt(Start(), A, HANG)
    task = await reading(it)
    skip(61)
    while not it.journey.deadline.fired:
        await asyncio.sleep(0)
    stop(it)
    assert isinstance(end_of(await task), Error), "what came first is what happened"
    assert it.counted == {"timeout": "error:timeout"}


async def test_stopped_before_it_began() -> None:
    it = attempt(*says("a"))
    stop(it)
    with pytest.raises(Stopped):
        await it.read()
    assert it.adapter.calls == [], "a provider was asked for nobody"


async def test_stopped_while_the_reader_is_slow() -> None:
    it = attempt(*says("a", "b"))
    await it.call.open()
    async for event in it.call.events():
        it.seen.append(event)
        if event == A:
            stop(it)
            await idle()  # no cancel may hit the reader
    assert it.seen == [Start(), A, Abort(reason="the server shuts down")]
    assert it.counted == {"cancelled": "abort"}


async def test_stopped_with_the_finish_is_finished() -> None:
    it = attempt(*says("a"))
    await it.call.open()
    async for event in it.call.events():
        it.seen.append(event)
        if isinstance(event, Finish):
            stop(it)
    assert it.seen == says("a")
    assert it.counted == {"success": "finish"}


# Adapters that misbehave.


async def test_an_adapter_may_raise_anything(caplog: pytest.LogCaptureFixture) -> None:
    it = attempt(Start(), KeyError(f"no {KEY} here"), api_key=KEY)
    with pytest.raises(ProviderError) as caught:
        await it.read()
    assert caught.value.kind is Kind.SERVER
    assert caught.value.message == "its adapter failed: KeyError: 'no [redacted] here'"
    assert it.upstream.meter.last_error is not None
    assert it.upstream.meter.last_error.message == caught.value.message
    assert "test_call" in caplog.text or "testing/" in caplog.text, "the log does not say where"
    assert KEY not in caplog.text, "the key went to the log"


async def test_a_key_in_the_words_of_a_provider_is_hidden_in_every_place() -> None:
    it = attempt(Start(), A, ProviderError(Kind.AUTH, f"wrong key {KEY}"), api_key=KEY)
    end = end_of(await it.read())
    assert isinstance(end, Error)
    assert end.message == "a: wrong key [redacted]"
    assert it.upstream.meter.last_error is not None
    assert KEY not in it.upstream.meter.last_error.message


async def test_an_adapter_that_yields_nonsense_has_failed() -> None:
    class Nonsense(Odd):
        async def odd(self) -> AsyncGenerator[Event, None]:
            yield {"text": "a"}  # type: ignore[misc]

    with pytest.raises(ProviderError, match="its adapter failed"):
        await Attempt(odd(Nonsense)).read()


class Untidy(Odd):
    """Says `words`, waits if it is to, and makes a mess when it is closed."""

    words: Sequence[Event] = (Start(), A)
    waits = False
    mess: BaseException | None = None

    async def odd(self) -> AsyncGenerator[Event, None]:
        try:
            for event in self.words:
                yield event
            if self.waits:
                await HANG.wait()
        finally:
            if self.mess is None:
                await HANG.wait()
            else:
                raise self.mess


def untidy(mess: BaseException | None, words: Sequence[Event] = (Start(), A), *, waits: bool = False) -> Attempt:
    it = Attempt(odd(Untidy, api_key=KEY, timeouts={"between_tokens": 0.02}))
    it.adapter.mess, it.adapter.words, it.adapter.waits = mess, words, waits
    return it


MESSES = [RuntimeError(f"bad {KEY}"), BROKE, asyncio.CancelledError(), None]
IDS = ["raises", "fails", "cancelled its own task", "hangs"]


@pytest.mark.parametrize("mess", MESSES, ids=IDS)
async def test_what_closing_raises_changes_nothing_after_the_finish(
    mess: BaseException | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(proxy.pipeline.call, "CLOSING", 0.02)
    it = untidy(mess, says("a"))
    assert await it.read() == says("a")
    assert it.counted == {"success": "finish"}
    assert KEY not in caplog.text


@pytest.mark.parametrize("mess", MESSES, ids=IDS)
async def test_nor_when_the_reader_leaves(mess: BaseException | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy.pipeline.call, "CLOSING", 0.02)
    it = untidy(mess)
    await it.call.open()
    async with aclosing(it.call.events()) as events:
        await anext(events)
    assert it.counted == {"cancelled": "abort"}


@pytest.mark.parametrize("mess", MESSES[:3], ids=IDS[:3])
async def test_a_stop_stays_a_stop_whatever_the_adapter_makes_of_it(mess: BaseException) -> None:
    it = untidy(mess, waits=True)
    task = await reading(it)
    stop(it)
    assert isinstance(end_of(await task), Abort)
    assert it.counted == {"cancelled": "abort"}, "who was told to stop has not failed"
    assert it.blamed == 0


@pytest.mark.parametrize("mess", MESSES[:3], ids=IDS[:3])
async def test_a_timeout_stays_a_timeout(mess: BaseException) -> None:
    it = untidy(mess, waits=True)
    assert isinstance(end_of(await it.read()), Error)
    assert it.counted == {"timeout": "error:timeout"}


@pytest.mark.parametrize("mess", MESSES[:3], ids=IDS[:3])
async def test_anothers_cancel_stays_that(mess: BaseException) -> None:
    it = untidy(mess, waits=True)
    task = await reading(it)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert it.counted == {"cancelled": "abort"}


@pytest.mark.parametrize("words", [[Start()], [Start(), A]], ids=["before", "after the commit"])
async def test_a_cancel_of_its_own_making_is_a_failure_of_the_adapter(words: list[Event]) -> None:
    """It awaited a task of its own, which was cancelled; nobody has cancelled us."""
    it = untidy(asyncio.CancelledError(), words)
    try:
        assert isinstance(end_of(await it.read()), Error)
    except ProviderError:
        assert len(words) == 1
    assert it.counted == {"server": "error:server"}


async def test_a_swallowed_cancel_does_not_turn_the_next_failure_into_a_timeout() -> None:
    gate = asyncio.Event()

    class Swallows(Odd):
        async def odd(self) -> AsyncGenerator[Event, None]:
            yield A
            try:
                await HANG.wait()
            except asyncio.CancelledError:
                yield B
            await gate.wait()
            raise BROKE

    it = Attempt(odd(Swallows))
    task = await reading(it)
    skip(61)
    await idle()
    gate.set()
    await task
    assert task.cancelling() == 0
    assert it.counted == {"cut": "error:cut"}


async def test_only_what_is_the_providers_fault_is_blamed_on_it() -> None:
    for kind in Kind:
        it = attempt(Start(), ProviderError(kind, "no"))
        with pytest.raises(ProviderError):
            await it.read()
        assert it.counted == {kind: f"error:{kind}"}
        assert it.blamed == kind.trips, f"{kind} was {'' if it.blamed else 'not '}counted against the circuit"


async def test_a_rate_limit_makes_the_provider_rest() -> None:
    it = attempt(Start(), ProviderError(Kind.RATE_LIMIT, "slow down", retry_after=7))
    with pytest.raises(ProviderError):
        await it.read()
    assert it.upstream.due() == it.upstream.clock() + 7


async def test_a_first_token_closes_the_circuit_and_a_finish_clears_its_count() -> None:
    it = attempt(*says("a"))
    circuit = it.upstream.circuit
    circuit.failed(0, 0.0)
    await it.call.open()
    assert it.blamed == 1
    await play(it.call.events())
    assert it.blamed == 0


async def test_the_adapter_is_asked_for_what_the_client_asked() -> None:
    it = Attempt(scripted("a", says("a")), temperature=0.5, x_unknown=[1], stream=True, tools=[{"type": "function"}])
    await it.read()
    messages, tools, fields = it.adapter.calls[0]
    assert messages == [{"role": "user", "content": "hi"}]
    assert tools == [{"type": "function"}]
    assert fields == {"model": "m", "temperature": 0.5, "x_unknown": [1]}


@pytest.mark.parametrize("failures", [{}, {"b": BROKE}])
async def test_an_adapter_that_wants_to_know_is_told_of_a_fallback(failures: dict[str, ProviderError]) -> None:
    class Knows(type(scripted())):  # type: ignore[misc]
        features = frozenset({"fallback"})

    adapter = scripted("a", says("a"))
    adapter.__class__ = Knows
    it = Attempt(adapter)
    it.journey.failures = failures
    await it.read()
    assert it.adapter.calls[0][2]["weir_fallback"] == bool(failures)
