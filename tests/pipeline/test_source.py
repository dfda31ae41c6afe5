"""A source goes on where its reader steers it, and ends once whatever happens."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from proxy.errors import Kind, NoAnswer, ProviderError, RequestError, Stopped
from proxy.events import Abort, Error, Event, Finish, Start, Steered, TextDelta, ToolInputDelta
from proxy.journey import Journey
from proxy.pipeline.source import Source
from proxy.pipeline.stream import Stream
from proxy.testing import ScriptedAdapter, says, scripted, text_of
from tests.journeys import HANG, House, Odd, idle, odd, request, skip

pytestmark = pytest.mark.anyio

A, B = TextDelta(content="a"), TextDelta(content="b")


class Reading:
    """One source of scripted providers, read in the background."""

    def __init__(self, *adapters: ScriptedAdapter):
        self.house = House(*adapters)
        self.stream = Stream(Journey("r1", "m"))
        self.source = Source(
            self.house.failover, request(), lambda: self.house.router.routes("m"), self.stream.journey, self.stream
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
    assert it.house["a"].active == 0


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
    assert it.house["a"].active == 0
