"""A source goes on where its reader steers it, and ends once whatever happens."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from proxy.errors import Kind, NoAnswer, ProviderError, RequestError, Stopped
from proxy.events import Abort, Error, Event, Finish, Recovered, Start, Steered, TextDelta, ToolInputDelta
from proxy.journey import Journey
from proxy.pipeline.source import Source
from proxy.pipeline.stream import Stream
from proxy.testing import ScriptedAdapter, says, scripted, text_of
from tests.journeys import HANG, House, Odd, idle, odd, request, skip

pytestmark = pytest.mark.anyio

A, B = TextDelta(content="a"), TextDelta(content="b")


class Reading:
    """One source of scripted providers, read in the background."""

    def __init__(self, *adapters: ScriptedAdapter, durable: bool = False, **weir: Any):
        self.house = House(*adapters)
        self.stream = Stream(Journey("r1", "m"))
        self.stream.durable = durable
        asked = request(weir=weir)
        self.source = Source(
            self.house.failover, asked, lambda: self.house.router.routes("m"), self.stream.journey, self.stream
        )
        self.events: list[Event] = []

    async def read(self) -> list[Event]:
        try:
            await self.source.open()
            async for event in self.stream.paced(self.source.events()):
                event.seq, event.source = 0, ""
                self.events.append(event)
        finally:
            await self.source.close()
            self.stream.close()
        return self.events


async def test_a_plain_answer_passes() -> None:
    it = Reading(scripted("a", says("a", "b"), models=["m"]))
    assert await it.read() == says("a", "b")
    assert it.source.end == Finish()
    assert it.source.said.text() == "ab"


async def test_steered_it_keeps_what_was_said_and_goes_on() -> None:
    adapter = scripted("a", [Start(), A, HANG], says("c"), models=["m"])
    it = Reading(adapter)
    reading = asyncio.create_task(it.read())
    await idle()
    assert await it.stream.steer("in French") > 0
    assert await reading == [Start(), A, Steered(instruction="in French"), *says("c")[1:]]
    assert adapter.calls[1][0] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "in French"},
    ]
    assert it.house["a"].meter.tallies["total"].cancelled == 1, "the answer that was broken off is no failure"
    assert it.source.said.text() == "c"


async def test_steered_before_it_said_anything() -> None:
    adapter = scripted("a", [HANG], says("c"), models=["m"])
    it = Reading(adapter)
    reading = asyncio.create_task(it.read())
    await idle()
    await it.stream.steer("in French")
    assert text_of(await reading) == "c"
    assert Steered(instruction="in French") in it.events
    assert adapter.calls[1][0] == [{"role": "user", "content": "hi"}, {"role": "user", "content": "in French"}]


async def test_a_tool_call_that_was_broken_off_is_not_sent_back() -> None:
    """A vendor refuses a call without its result."""
    adapter = scripted("a", [A, ToolInputDelta(id="t", name="f"), HANG], says("c"), models=["m"])
    it = Reading(adapter)
    reading = asyncio.create_task(it.read())
    await idle()
    await it.stream.steer("no tools")
    await reading
    assert adapter.calls[1][0][1] == {"role": "assistant", "content": "a"}


async def test_steered_again_and_again() -> None:
    it = Reading(scripted("a", [Start(), A, HANG], [Start(), B, HANG], says("c"), models=["m"]))
    reading = asyncio.create_task(it.read())
    for instruction in ("one", "two"):
        await idle()
        await it.stream.steer(instruction)
    assert text_of(await reading) == "abc"
    assert [event.instruction for event in it.events if isinstance(event, Steered)] == ["one", "two"]


async def test_where_nobody_can_go_on_the_stream_ends_marked() -> None:
    it = Reading(scripted("a", [A, HANG], [ProviderError(Kind.AUTH, "no")], models=["m"]))
    reading = asyncio.create_task(it.read())
    await idle()
    await it.stream.steer("go on")
    last = (await reading)[-1]
    assert isinstance(last, Error)
    assert "no" in last.message


async def test_a_client_that_goes_away_while_it_steers_ends_it() -> None:
    it = Reading(scripted("a", [A, HANG], [A, HANG], models=["m"]))
    reading = asyncio.create_task(it.read())
    await idle()
    steering = asyncio.create_task(it.stream.steer("go on"))
    it.stream.stop("the client went away")
    await idle()
    it.stream.stop("the client went away")
    assert (await reading)[-1] == Abort(reason="the client went away")
    await asyncio.gather(steering, return_exceptions=True)


async def test_a_pause_is_no_silence_of_the_providers() -> None:
    gate = asyncio.Event()
    it = Reading(scripted("a", [A, gate, B, Finish()], models=["m"], timeouts={"between_tokens": 10, "total": 20}))
    reading = asyncio.create_task(it.read())
    await idle()
    gate.set()
    await it.stream.pause(3600)
    await idle()
    skip(1000)
    await it.stream.resume()
    assert (await reading)[-1] == Finish()


async def test_opened_in_the_background_its_failure_is_an_event() -> None:
    it = Reading(scripted("a", [ProviderError(Kind.AUTH, "no")], models=["m"]))
    opening = it.source.begin()
    await asyncio.wait([opening])
    assert isinstance(opening.exception(), NoAnswer)
    events = [event async for event in it.source.events()]
    assert [type(event) for event in events] == [Error]


async def test_closed_while_it_opens() -> None:
    it = Reading(scripted("a", [HANG], models=["m"]))
    it.source.begin()
    await idle()
    await it.source.close()
    assert it.house["a"].meter.active == 0


async def test_stopped_while_it_is_steered_it_says_why_it_was_stopped() -> None:
    it = Reading(scripted("a", [A, HANG], [A, HANG], models=["m"]))
    reading = asyncio.create_task(it.read())
    await idle()
    steering = asyncio.create_task(it.stream.steer("go on"))
    await asyncio.sleep(0)
    it.stream.stop("the client went away")
    assert await reading == [A, Abort(reason="the client went away")]
    with pytest.raises(RequestError, match="has ended"):
        await steering


async def test_also_before_it_has_said_anything() -> None:
    it = Reading(scripted("a", [HANG], [A, HANG], models=["m"]))
    reading = asyncio.create_task(it.read())
    await idle()
    steering = asyncio.create_task(it.stream.steer("go on"))
    await asyncio.sleep(0)
    it.stream.stop("the client went away")
    with pytest.raises(Stopped, match="the client went away"):
        await reading
    with pytest.raises(RequestError, match="has ended"):
        await steering


async def test_an_instruction_that_came_while_another_was_carried_out_is_marked_as_what_it_is() -> None:
    it = Reading(scripted("a", [HANG], [A, HANG], says("b"), models=["m"]))
    opening = it.source.begin()
    await idle()
    steering = [asyncio.create_task(it.stream.steer("one"))]
    await asyncio.wait([opening])
    steering.append(asyncio.create_task(it.stream.steer("two")))
    await idle()
    marks = [event async for event in it.source.events() if isinstance(event, Steered)]
    assert marks == [Steered(instruction="one"), Steered(instruction="two")]
    it.stream.close()
    await asyncio.gather(*steering, return_exceptions=True)
    await it.source.close()


async def test_closing_what_opens_swallows_no_cancel() -> None:
    gate = asyncio.Event()

    class Slow(Odd):
        async def odd(self) -> AsyncGenerator[Event, None]:
            try:
                await HANG.wait()
                yield A
            finally:
                await gate.wait()

    it = Reading(odd(Slow, models=["m"]))
    opening = it.source.begin()
    await idle()
    closing = asyncio.create_task(it.source.close())
    await idle()
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    gate.set()
    await asyncio.wait([opening])
    assert it.house["a"].meter.active == 0


CUT = ProviderError(Kind.CUT, "cut")
HI = {"role": "user", "content": "hi"}


def marks(events: list[Event]) -> list[tuple[str, int]]:
    return [(event.how, event.after) for event in events if isinstance(event, Recovered)]


async def test_by_default_an_answer_that_breaks_is_a_marked_error() -> None:
    adapter = scripted("a", [Start(), A, CUT], says("never"), models=["m"])
    events = await Reading(adapter).read()
    assert [type(event) for event in events] == [Start, TextDelta, Error]
    assert len(adapter.calls) == 1


async def test_in_a_durable_stream_the_end_of_what_was_said_is_marked() -> None:
    events = await Reading(scripted("a", [Start(), A, CUT], models=["m"]), durable=True).read()
    assert events[2] == Recovered(how="failed", reason="a: cut")
    assert isinstance(events[3], Error)


@pytest.mark.parametrize("durable", [False, True])
async def test_restarted_it_is_asked_again_and_what_was_said_is_to_be_discarded(durable: bool) -> None:
    adapter = scripted("a", [Start(), A, CUT], says("new"), models=["m"])
    it = Reading(adapter, durable=durable, recovery="restart")
    events = await it.read()
    assert events == [Start(), A, Recovered(how="restarted", reason="a: cut"), *says("new")[1:]]
    assert [messages for messages, *_ in adapter.calls] == [[HI], [HI]]
    assert it.source.said.text() == "new", "a session would keep what was discarded"
    assert it.house["a"].meter.tallies["total"].failures == {"cut": 1}, "the provider's failure was not counted"


@pytest.mark.parametrize("durable", [False, True])
async def test_continued_another_provider_takes_it_up_where_it_ends(durable: bool) -> None:
    one = scripted("a", [Start(), A, CUT], models=["m"], priority=0, prefill=False)
    two = scripted("b", says("b"), models=["m"], prefill=True)
    it = Reading(one, two, durable=durable, recovery="continue")
    events = await it.read()
    assert events == [Start(), A, Recovered(how="continued", reason="a: cut"), *says("b")[1:]]
    assert [messages for messages, *_ in two.calls] == [[HI, {"role": "assistant", "content": "a"}]]
    assert (len(one.calls), it.source.said.text()) == (1, "ab")


@pytest.mark.parametrize(
    ("said", "more", "reads"),
    [
        ("a ", [" b"], "a b"),
        ("a ", ["b"], "a b"),
        ("a\n\n", ["\n", "\n", "b", "\n"], "a\n\nb\n"),
        ("a\n", ["\n\nb"], "a\n\nb"),
        ("a\n", ["", "b\n"], "a\nb\n"),
    ],
)
async def test_blanks_at_the_end_are_kept_from_the_model_and_not_said_twice(
    said: str, more: list[str], reads: str
) -> None:
    """Anthropic refuses a last message that ends in blanks."""
    one = scripted("a", [Start(), TextDelta(content=said), CUT], models=["m"], priority=0)
    two = scripted("b", says(*more), models=["m"], prefill=True)
    it = Reading(one, two, recovery="continue")
    assert text_of(await it.read()) == reads
    assert it.source.said.text() == reads, "a session would keep something else"
    assert two.calls[0][0][1:] == [{"role": "assistant", "content": said.rstrip()}]


@pytest.mark.parametrize(
    ("script", "prefill"),
    [
        ([Start(), A, CUT], False),
        ([Start(), A, CUT], None),
        ([Start(), A, ToolInputDelta(id="t", name="f"), CUT], True),
        ([Start(), TextDelta(content="b", index=1), CUT], True),
        ([Start(), TextDelta(content=" \n"), CUT], True),
    ],
    ids=["a model that takes no prefill", "an unknown model", "a tool call", "another choice", "blanks"],
)
async def test_what_cannot_be_continued_breaks(script: Any, prefill: bool | None) -> None:
    adapter = scripted("a", script, says("never"), models=["m"], prefill=prefill)
    events = await Reading(adapter, recovery="continue").read()
    assert (marks(events), type(events[-1]), len(adapter.calls)) == ([], Error, 1)


@pytest.mark.parametrize("recovery", ["restart", "continue"])
async def test_it_is_recovered_once_and_no_more(recovery: str) -> None:
    adapter = scripted("a", [Start(), A, CUT], [Start(), B, CUT], says("never"), models=["m"], prefill=True)
    events = await Reading(adapter, recovery=recovery).read()
    assert (len(marks(events)), type(events[-1]), len(adapter.calls)) == (1, Error, 2)


async def test_within_the_retry_budget_only() -> None:
    adapter = scripted("a", [Start(), A, CUT], says("never"), models=["m"])
    it = Reading(adapter, recovery="restart")
    it.house.failover.budget.retrying = it.house.failover.budget.LEAST
    events = await it.read()
    assert (marks(events), type(events[-1]), len(adapter.calls)) == ([], Error, 1)


async def test_after_steering_what_answers_the_instruction_is_begun_anew() -> None:
    gate = asyncio.Event()
    adapter = scripted("a", [Start(), A, HANG], [Start(), B, gate, CUT], says("new"), models=["m"])
    it = Reading(adapter, recovery="restart")
    reading = asyncio.create_task(it.read())
    await idle()
    position = await it.stream.steer("in French")
    gate.set()
    assert marks(await reading) == [("restarted", position)]
    assert adapter.calls[2][0] == adapter.calls[1][0]


async def test_steered_after_it_was_continued_it_keeps_all_that_was_said() -> None:
    adapter = scripted("a", [Start(), A, CUT], [Start(), B, HANG], says("c"), models=["m"], prefill=True)
    it = Reading(adapter, recovery="continue")
    reading = asyncio.create_task(it.read())
    await idle()
    await it.stream.steer("in French")
    await reading
    assert adapter.calls[2][0] == [
        HI,
        {"role": "assistant", "content": "ab"},
        {"role": "user", "content": "in French"},
    ]


async def test_a_provider_that_falls_silent_has_died_too() -> None:
    adapter = scripted("a", [Start(), A, HANG], says("new"), models=["m"], timeouts={"between_tokens": 10})
    it = Reading(adapter, recovery="restart")
    reading = asyncio.create_task(it.read())
    await idle()
    skip(11)
    events = await reading
    assert (marks(events), events[-1]) == ([("restarted", 0)], Finish())


async def test_where_nobody_can_begin_anew_it_ends_marked() -> None:
    adapter = scripted("a", [Start(), A, CUT], [ProviderError(Kind.AUTH, "no")], models=["m"])
    events = await Reading(adapter, recovery="restart").read()
    assert [type(event) for event in events] == [Start, TextDelta, Error], "it took back what nothing comes in place of"


async def test_in_a_durable_stream_that_is_marked() -> None:
    adapter = scripted("a", [Start(), A, CUT], [ProviderError(Kind.AUTH, "no")], models=["m"])
    events = await Reading(adapter, durable=True, recovery="restart").read()
    assert [event.how for event in events if isinstance(event, Recovered)] == ["failed"]
    assert isinstance(events[-1], Error)


async def test_one_that_was_told_to_stop_is_not_recovered() -> None:
    adapter = scripted("a", [Start(), A, HANG], says("never"), models=["m"])
    it = Reading(adapter, recovery="restart")
    reading = asyncio.create_task(it.read())
    await idle()
    it.stream.stop("enough")
    assert (await reading)[-1] == Abort(reason="enough")
    assert len(adapter.calls) == 1
