"""A session is read before its request and written after it: nothing lost, nothing invented, no end told too early."""

import asyncio
from typing import Any

import msgspec
import pytest

from proxy.errors import Kind, ProviderError, RequestError, StoreAway
from proxy.events import (
    Error,
    Event,
    Finish,
    FinishStep,
    ReasoningDelta,
    SourceEnd,
    Start,
    TextDelta,
    ToolInputDelta,
)
from proxy.journey import Journey
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.stream import Stream
from proxy.request import ChatRequest
from proxy.session.conversation import Session, history
from proxy.state.sessions import SessionRef
from proxy.testing import ScriptedAdapter, says, scripted, text_of
from tests.journeys import HANG, House, idle

pytestmark = pytest.mark.anyio

REF = SessionRef("me", "s1")
A = TextDelta(content="a")


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def asking(*messages: dict[str, Any], **weir: Any) -> ChatRequest:
    options = {"session_id": "s1", "history": True, **weir}
    request = ChatRequest({"model": "m", "messages": [*messages], "weir": options}, "r1")
    request.owner = "me"
    return request


async def ask(pipeline: Pipeline, *messages: dict[str, Any], **weir: Any) -> list[Event]:
    async with pipeline.answer(asking(*messages, **weir), Stream(Journey("r1", "m"))) as events:
        return [event async for event in events]


async def kept(house: House) -> Session:
    session = await house.sessions.load(REF)
    assert session is not None, "there is no session"
    return session


async def test_what_was_said_goes_before_what_is_asked() -> None:
    adapter = scripted("a", says("one", usage=(3, 1)), says("two"), models=["m"])
    house = House(adapter)
    await ask(house.pipeline, user("first"))
    await ask(house.pipeline, user("second"))
    assert adapter.calls[0][0] == [user("first")]
    assert adapter.calls[1][0] == [user("first"), assistant("one"), user("second")]
    session = await kept(house)
    assert [turn.state for turn in session.turns] == ["finished", "finished"]
    answer = session.turns[0].answers[0]
    assert (answer.provider, answer.end) == ("a", "finish")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 1)


async def test_a_client_that_sends_it_all_is_sent_on_as_it_came_and_only_what_is_new_is_kept() -> None:
    adapter = scripted("a", says("one"), says("two"), models=["m"])
    house = House(adapter)
    await ask(house.pipeline, user("first"), history=False)
    whole = [user("first"), assistant("one"), user("second")]
    await ask(house.pipeline, *whole, history=False)
    assert adapter.calls[1][0] == whole
    assert history(await kept(house)) == [*whole, assistant("two")]


async def test_thoughts_that_led_to_a_call_go_back_with_its_result_to_whom_they_are() -> None:
    thinking: list[Event] = [
        Start(),
        ReasoningDelta(content="hm"),
        ToolInputDelta(id="c", name="f", content="{}"),
        FinishStep(reason="tool_calls"),
        Finish(),
    ]
    one, two = scripted("one", thinking, says("done"), models=["m"]), scripted("two", says("done"), models=["n"])
    house = House(one, two)
    await ask(house.pipeline, user("first"))
    result = {"role": "tool", "tool_call_id": "c", "content": "42"}
    await ask(house.pipeline, result)
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert one.calls[1][0] == [user("first"), {**said, "reasoning_content": "hm"}, result]
    request = asking(user("second"))
    request.model = "n"
    async with house.pipeline.answer(request, Stream(Journey("r2", "n"))) as events:
        assert [event async for event in events]
    assert two.calls[0][0] == [user("first"), said, result, assistant("done"), user("second")]


async def test_the_turn_is_written_before_its_end_is_told() -> None:
    house = House(scripted("a", says("one"), models=["m"]))
    async with house.pipeline.answer(asking(user("first")), Stream(Journey("r1", "m"))) as events:
        async for event in events:
            if isinstance(event, Finish):
                assert (await kept(house)).turns[0].state == "finished", "who sees the end may ask at once"


async def test_a_broken_answer_is_kept_as_broken() -> None:
    adapter = scripted("a", [Start(), A, ProviderError(Kind.CUT, "cut")], says("b"), models=["m"])
    house = House(adapter)
    assert isinstance((await ask(house.pipeline, user("first")))[-1], Error)
    turn = (await kept(house)).turns[0]
    assert (turn.state, turn.answers[0].end, turn.answers[0].message) == ("broken", "error", assistant("a"))
    await ask(house.pipeline, user("go on"))
    assert adapter.calls[1][0] == [user("first"), assistant("a"), user("go on")]


async def test_a_reader_that_leaves_leaves_a_turn_behind() -> None:
    house = House(scripted("a", [Start(), A, HANG], models=["m"]))
    async with house.pipeline.answer(asking(user("first")), Stream(Journey("r1", "m"))) as events:
        await anext(events)
        await anext(events)
    turn = (await kept(house)).turns[0]
    assert (turn.state, turn.answers[0].end, turn.answers[0].message) == ("broken", "abort", assistant("a"))


async def test_what_nobody_could_answer_is_kept_too() -> None:
    house = House(scripted("a", [ProviderError(Kind.AUTH, "no")], models=["m"]))
    with pytest.raises(Exception, match="no provider could answer"):
        await ask(house.pipeline, user("first"))
    assert (await kept(house)).turns[0].state == "broken"


async def test_a_steered_answer_is_two_turns() -> None:
    adapter = scripted("a", [Start(), A, HANG], says("b"), says("c"), models=["m"])
    house, stream, spoken = House(adapter), Stream(Journey("r1", "m")), asyncio.Event()

    async def read() -> None:
        async with house.pipeline.answer(asking(user("first")), stream) as events:
            async for event in events:
                if event == msgspec.structs.replace(A, seq=event.seq, source="a"):
                    spoken.set()

    reading = asyncio.create_task(read())
    await spoken.wait()
    await stream.steer("in French")
    await reading
    await ask(house.pipeline, user("more"))
    said = [user("first"), assistant("a"), user("in French"), assistant("b"), user("more")]
    assert adapter.calls[2][0] == said


async def test_several_answers_are_one_turn() -> None:
    a, b = scripted("a", says("one"), says("x")), scripted("b", says("two"), says("y"))
    house = House(a, b)
    await ask(house.pipeline, user("first"), providers=["a", "b"])
    turn = (await kept(house)).turns[0]
    assert {answer.provider: answer.message for answer in turn.answers} == {
        "a": assistant("one"),
        "b": assistant("two"),
    }


async def test_a_turn_may_take_the_place_of_the_last() -> None:
    house = House(scripted("a", says("one"), says("two"), models=["m"]))
    await ask(house.pipeline, user("first"), history=False)
    await ask(house.pipeline, user("first"), history=False, replace_last=True)
    assert history(await kept(house)) == [user("first"), assistant("two")]


async def test_an_old_conversation_is_cut_to_the_window() -> None:
    adapter = scripted("a", *[says("x" * 500)] * 9, models=["m"], context_window=1000)
    house = House(adapter)
    for _ in range(9):
        await ask(house.pipeline, user("y" * 500))
    sent = adapter.calls[-1][0]
    assert 3 <= len(sent) < 17, f"{len(sent)} messages were sent"
    assert [message["role"] for message in sent[:2]] == ["user", "assistant"]
    assert len((await kept(house)).turns) == 9, "what is not sent is kept all the same"


async def test_without_redis_it_is_refused_at_once_and_nobody_is_asked() -> None:
    adapter: ScriptedAdapter = scripted("a", says("one"), models=["m"])
    house = House(adapter)
    house.store.away = True
    with pytest.raises(StoreAway):
        await ask(house.pipeline, user("first"))
    assert not adapter.calls
    assert not house.pipeline.live


class Reader:
    """Reads an answer in the background, and stands still at the first word until `goes_on`."""

    def __init__(self, house: House, **weir: Any):
        self.stream = Stream(Journey("r1", "m"))
        self.events: list[Event] = []
        self.at_a_word, self.goes_on, self.leaves = asyncio.Event(), asyncio.Event(), False
        self.task = asyncio.create_task(self._read(house, weir))

    async def _read(self, house: House, weir: dict[str, Any]) -> None:
        async with house.pipeline.answer(asking(user("first"), **weir), self.stream) as events:
            async for event in events:
                self.events.append(event)
                if isinstance(event, TextDelta):
                    self.at_a_word.set()
                    await self.goes_on.wait()
                    if self.leaves:
                        return

    async def steer(self, *instructions: str) -> list[asyncio.Task[int]]:
        steering = []
        for instruction in instructions:
            steering.append(asyncio.create_task(self.stream.steer(instruction)))
            await idle()
        return steering


def told(session: Session) -> list[tuple[str, dict[str, Any]]]:
    """The turns: what was asked, and by source how each answer ended and what it said."""
    return [
        (turn.messages[0]["content"], {it.source: (it.end, (it.message or {}).get("content")) for it in turn.answers})
        for turn in session.turns
    ]


async def test_a_slow_reader_steers_twice_and_each_turn_is_kept() -> None:
    """A mode reads ahead: the source has been through it all before the reader comes to the first marker."""
    house = House(scripted("a", [Start(), A, HANG], [TextDelta(content="b"), HANG], says("c"), models=["m"]))
    reader = Reader(house, mode="interleaved")
    await reader.at_a_word.wait()
    steering = await reader.steer("one", "two")
    reader.goes_on.set()
    await reader.task
    await asyncio.gather(*steering)
    assert told(await kept(house)) == [
        ("first", {"m": ("abort", "a")}),
        ("one", {"m": ("abort", "b")}),
        ("two", {"m": ("finish", "c")}),
    ]


async def test_a_reader_that_leaves_before_the_marker_leaves_what_was_said_to_the_question() -> None:
    house = House(scripted("a", [Start(), A, HANG], [TextDelta(content="b"), HANG], models=["m"]))
    reader = Reader(house, mode="interleaved")
    await reader.at_a_word.wait()
    steering = await reader.steer("one")
    reader.leaves = True
    reader.goes_on.set()
    await reader.task
    await asyncio.gather(*steering, return_exceptions=True)
    assert told(await kept(house)) == [("first", {"m": ("abort", "a")})]


async def test_a_source_that_had_ended_has_answered_the_question_and_not_the_instruction() -> None:
    house = House(scripted("a", says("one")), scripted("b", [Start(), A, HANG], says("two")))
    reader = Reader(house, providers=["a", "b"])
    reader.goes_on.set()
    while not (any(isinstance(it, SourceEnd) for it in reader.events) and text_of(reader.events) in ("onea", "aone")):
        await asyncio.sleep(0)
    await reader.stream.steer("in French")
    await reader.task
    assert told(await kept(house)) == [
        ("first", {"a": ("finish", "one"), "b": ("abort", "a")}),
        ("in French", {"b": ("finish", "two")}),
    ]


async def test_where_nobody_is_left_to_go_on_what_was_said_is_kept() -> None:
    house = House(scripted("a", [Start(), A, HANG], models=["m"]))
    reader = Reader(house)
    reader.goes_on.set()
    await reader.at_a_word.wait()
    await house.router.remove("a")
    await asyncio.gather(*await reader.steer("one"), return_exceptions=True)
    await reader.task
    assert isinstance(reader.events[-1], Error)
    assert told(await kept(house)) == [("first", {"m": ("error", "a")})]


@pytest.mark.parametrize("session_id", ["", "..", "a/b"])
async def test_a_session_that_cannot_be_is_refused_and_nothing_stays_live(session_id: str) -> None:
    house = House(scripted("a", says("one"), models=["m"]))
    with pytest.raises(RequestError, match="session_id"):
        await ask(house.pipeline, user("first"), session_id=session_id)
    assert not house.pipeline.live


async def test_cancelled_again_while_it_writes_down_it_leaves_nothing_live() -> None:
    house = House(scripted("a", [Start(), A, HANG], models=["m"]))
    house.sessions.end = lambda *_: HANG.wait()  # type: ignore[assignment]
    reader = Reader(house)
    reader.goes_on.set()
    await reader.at_a_word.wait()
    for _ in range(2):
        reader.task.cancel()
        await idle()
    assert reader.task.cancelled()
    assert not house.pipeline.live


async def test_an_answer_steered_while_redis_is_away_goes_on() -> None:
    adapter = scripted("a", [Start(), A, HANG], says("b"), models=["m"])
    house, stream, seen = House(adapter), Stream(Journey("r1", "m")), list[Event]()

    async def read() -> None:
        async with house.pipeline.answer(asking(user("first")), stream) as events:
            async for event in events:
                seen.append(event)
                if isinstance(event, TextDelta):
                    spoken.set()

    spoken = asyncio.Event()
    reading = asyncio.create_task(read())
    await spoken.wait()
    house.store.away = True
    await stream.steer("in French")
    await reading
    assert text_of(seen) == "ab"
    assert isinstance(seen[-1], Finish)
