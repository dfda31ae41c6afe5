"""Whatever a reader says back to however many sources, in whatever mode: one end, nothing left, and all of it kept."""

import asyncio
import logging
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import Kind, NoAnswer, ProviderError, RequestError, Stopped
from proxy.events import ENDS, Event, Finish, Start, Steered, TextDelta
from proxy.generator import GeneratorMode
from proxy.journey import Journey
from proxy.pipeline.stream import Stream
from tests.journeys import House, Odd, idle, odd, skip
from tests.pipeline.test_memory import REF, asking, user
from tests.pipeline.test_pipeline import left_behind

pytestmark = pytest.mark.anyio


class Talker(Odd):
    """Says the next word when `gate` lets it, fails when it is told to, and takes its time to close."""

    said = 0
    fails = False
    gate: asyncio.Semaphore

    async def odd(self) -> AsyncGenerator[Event, None]:
        try:
            yield Start()
            for _ in range(3):
                await self.gate.acquire()
                if self.fails:
                    raise ProviderError(Kind.CUT, "cut")
                self.said += 1
                yield TextDelta(content=f"{self.config.provider_id}{self.said} ")
            yield Finish()
        finally:
            await asyncio.sleep(0)


def talker_of(name: str) -> Talker:
    talker = odd(Talker, name, retry={"max_attempts": 1})
    assert isinstance(talker, Talker)
    talker.gate = asyncio.Semaphore(0)
    return talker


class Reader:
    """Reads in its own time, and gives up when it `left`; `begin` says something back and does not wait."""

    def __init__(self, names: list[str], mode: str, pace: int):
        self.talkers = [talker_of(name) for name in names]
        self.house = House(*self.talkers)
        self.stream = Stream(Journey("r1", names[0], mode))
        self.seen: list[Event] = []
        self.left = self.cancelled = False
        self.controls: list[asyncio.Task[int]] = []
        self.task = asyncio.create_task(self._read(names, mode, pace))

    async def _read(self, names: list[str], mode: str, pace: int) -> None:
        asked = asking(user("first"), providers=names, mode=mode)
        async with self.house.pipeline.answer(asked, self.stream) as events:
            async for event in events:
                self.seen.append(event)
                for _ in range(pace):
                    await asyncio.sleep(0)
                if self.left:
                    return

    def act(self, act: str, number: int) -> None:
        stream = self.stream
        match act:
            case "first" | "last":
                self.talkers[0 if act == "first" else -1].gate.release()
            case "fail":
                self.talkers[-1].fails = True
            case "leave":
                self.left = True
            case "skip":
                skip(61)
            case "kill":
                self.cancelled = self.cancelled or not self.task.done()
                self.task.cancel()
            case _:
                said = {"pause": stream.pause, "resume": stream.resume, "cancel": stream.cancel}
                work = stream.steer(f"i{number}") if act == "steer" else said[act]()
                self.controls.append(asyncio.create_task(work))

    async def over(self) -> None:
        self.stream.stop("the test is over")
        done, _ = await asyncio.wait([self.task], timeout=10)
        assert done, "it never ended"
        self.stream.close()  # it may not even have begun
        for result in await asyncio.gather(*self.controls, return_exceptions=True):
            refused = isinstance(result, RequestError) and result.status == 409
            assert isinstance(result, int) or refused, f"a control got {result!r}"
        if self.cancelled:
            await idle()  # its pumps end by themselves


acts = [
    "first",
    "first",
    "last",
    "last",
    "steer",
    "steer",
    "pause",
    "resume",
    "cancel",
    "skip",
    "leave",
    "kill",
    "fail",
]
plans = st.lists(st.tuples(st.sampled_from(acts), st.integers(0, 30)), max_size=14)


@settings(max_examples=150, deadline=None)
@given(plans, st.sampled_from(GeneratorMode), st.sampled_from(["a", "ab"]), st.integers(0, 18))
async def test_whatever_is_said_back_there_is_one_end(
    plan: list[tuple[str, int]], mode: GeneratorMode, names: str, pace: int
) -> None:
    logging.disable(logging.ERROR)
    try:
        it = Reader(list(names), mode, pace)
        for number, (act, ticks) in enumerate(plan):
            for _ in range(ticks):
                await asyncio.sleep(0)
            it.act(act, number)
        await it.over()
        ends = [event for event in it.seen if type(event) in ENDS]
        assert ends == it.seen[-1:] or not ends, f"more than one end, or something after it: {it.seen}"
        assert [event.seq for event in it.seen] == [*range(1, len(it.seen) + 1)]
        if it.task.cancelled():
            assert it.cancelled, "cancelled by nobody"
        else:
            error = it.task.exception()
            assert isinstance(error, Stopped | NoAnswer | None), f"a client is told {error!r}"
            assert ends or it.left or error, f"no end: {it.seen}"
        assert not left_behind(it.house)
        assert [talker.closed for talker in it.talkers] == [len(talker.calls) for talker in it.talkers]
        if not it.cancelled:
            await check_session(it, ended=bool(ends))
    finally:
        logging.disable(logging.NOTSET)


async def check_session(it: Reader, *, ended: bool) -> None:
    """Each turn is written once and has ended; what a source said to each instruction is kept where it belongs."""
    session = await it.house.sessions.load(REF)
    assert session is not None
    assert all(turn.state != "running" for turn in session.turns), f"a turn without an end: {session.turns}"
    if not ended:
        return
    marks = dict.fromkeys(event.instruction for event in it.seen if isinstance(event, Steered))
    assert [turn.messages[0]["content"] for turn in session.turns] == ["first", *marks]
    if len(it.talkers) == 1:
        told = [(answer.message or {}).get("content", "") for turn in session.turns for answer in turn.answers]
        assert told == words(it.seen), f"{told} was kept, but {it.seen}"


def words(seen: list[Event]) -> list[str]:
    """What was said to each instruction."""
    found = [""]
    for event in seen:
        if isinstance(event, Steered):
            found.append("")
        elif isinstance(event, TextDelta):
            found[-1] += event.content
    return found
