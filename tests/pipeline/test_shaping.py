"""A mode may be anybody's: whatever it does, its stream ends, once."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from proxy.deadline import Deadline
from proxy.events import Error, Event, Finish, Quiet, TextDelta
from proxy.generator import StreamingGenerator
from proxy.merge import Merge
from proxy.modes.standard import Standard
from proxy.pipeline.shaping import PATIENCE, shaped
from proxy.testing import says
from tests.journeys import HANG, idle, skip

pytestmark = pytest.mark.anyio


async def source(script: list[Any]) -> AsyncGenerator[Event, None]:
    for step in script:
        if isinstance(step, Event):
            yield step
        else:
            await step.wait()


async def run(mode: type[StreamingGenerator], *script: Any) -> list[Event]:
    async with Merge({"a": source([*script])}) as merge:
        deadline = Deadline(excused=lambda: merge.starved)
        try:
            return [event async for event in shaped(mode(), "odd", merge, deadline)]
        finally:
            deadline.close()


class Odd(StreamingGenerator):
    """Reads what it is given, and then does something else than a mode should."""

    async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        async for event in merge:
            if type(event) is not Finish:
                yield event
        await self.end()

    async def end(self) -> None: ...


async def test_a_good_mode_passes() -> None:
    assert [type(event) for event in await run(Standard, *says("a"))] == [type(event) for event in says("a")]


async def test_one_that_swallows_the_end_gets_one() -> None:
    last = (await run(Odd, *says("a")))[-1]
    assert isinstance(last, Error)
    assert last.message == "mode odd: ended before the stream did"


async def test_one_that_raises_has_failed() -> None:
    class Raises(Odd):
        async def end(self) -> None:
            raise ZeroDivisionError

    last = (await run(Raises, *says("a")))[-1]
    assert isinstance(last, Error)
    assert "ZeroDivisionError" in last.message


@pytest.mark.parametrize("rubbish", ["text", None, Quiet()])
async def test_one_that_yields_rubbish_has_failed(rubbish: Any) -> None:
    class Rubbish(StreamingGenerator):
        async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
            yield rubbish

    assert [type(event) for event in await run(Rubbish, *says("a"))] == [Error]


async def test_one_that_says_more_after_the_end_is_not_heard() -> None:
    class Talks(StreamingGenerator):
        async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
            yield Finish()
            yield TextDelta(content="more")

    assert await run(Talks, *says("a")) == [Finish()]


async def test_one_that_waits_for_ever_is_ended() -> None:
    class Hangs(Odd):
        async def end(self) -> None:
            await HANG.wait()

    running = asyncio.create_task(run(Hangs, *says("a")))
    await idle()
    skip(PATIENCE + 1)
    last = (await running)[-1]
    assert isinstance(last, Error)
    assert "kept what it was given" in last.message


async def test_a_silent_source_is_not_the_modes_fault() -> None:
    gate = asyncio.Event()
    running = asyncio.create_task(run(Standard, TextDelta(content="a"), gate, Finish()))
    for _ in range(3):
        await idle()
        skip(PATIENCE + 1)
    await idle()
    assert not running.done(), "the mode was ended while its source was silent"
    gate.set()
    assert isinstance((await running)[-1], Finish)
