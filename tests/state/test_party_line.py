"""What many ask while the line is busy goes together; all of one's own is done or nothing, and nobody harms another."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from redis.exceptions import RedisError, ResponseError

from proxy.state.line import Line, command
from proxy.state.party_line import MOST, PartyLine
from tests.journeys import idle
from tests.state.stores import Stores

pytestmark = pytest.mark.anyio

MULTI, EXEC = command("MULTI"), command("EXEC")


class Scripted:
    """A line whose exchanges end when the test says so. `asked`: what they were, without what is around each."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._answer: asyncio.Future[str] | None = None

    async def ask(self, commands: Sequence[bytes]) -> list[Any]:
        self.asked.append("".join(it.decode().split()[-1] for it in commands if it not in (MULTI, EXEC)))
        self._answer = asyncio.get_running_loop().create_future()
        word = await self._answer
        return [[word] if it == EXEC else "QUEUED" for it in commands]

    async def answer(self, error: Exception | None = None) -> None:
        assert self._answer is not None, "nobody asks"
        if error is not None:
            self._answer.set_exception(error)
        else:
            self._answer.set_result("done")
        await idle()


def party(line: Any) -> PartyLine:
    return PartyLine(cast(Line, line))


async def begun(line: PartyLine, word: str) -> asyncio.Task[list[Any]]:
    task = asyncio.create_task(line.transact([(word,)]))
    await idle()
    return task


async def test_what_comes_while_it_is_busy_goes_together() -> None:
    scripted = Scripted()
    line = party(scripted)
    tasks = [await begun(line, name) for name in "abc"]
    assert scripted.asked == ["a"]
    await scripted.answer()
    assert scripted.asked == ["a", "bc"]
    assert [task.done() for task in tasks] == [True, False, False]
    await scripted.answer()
    await asyncio.gather(*tasks)
    last = await begun(line, "d")
    await scripted.answer()
    assert await last
    assert scripted.asked[2:] == ["d"]


async def test_who_no_longer_waits_does_no_harm() -> None:
    scripted = Scripted()
    line = party(scripted)
    tasks = [await begun(line, name) for name in "abc"]
    tasks[0].cancel()
    await scripted.answer()
    tasks[1].cancel()
    tasks += [await begun(line, name) for name in "de"]
    tasks.append(asyncio.create_task(line.transact([("f",)], anyway=True)))
    await idle()
    for left in tasks[4:]:
        left.cancel()
    await scripted.answer()
    assert await tasks[2]
    await scripted.answer()
    assert await tasks[3]
    assert scripted.asked == ["a", "bc", "df"], "what was asked is not done, or twice, or for nobody"


async def test_who_waits_is_told_where_the_line_goes_down() -> None:
    scripted = Scripted()
    line = party(scripted)
    tasks = [await begun(line, name) for name in "ab"]
    assert line._speaking is not None
    line._speaking.cancel()
    for task in tasks:
        with pytest.raises(ConnectionError):
            await task
    again = await begun(line, "c")
    await scripted.answer()
    assert await again


async def test_what_went_wrong_is_told_to_all_who_wait() -> None:
    """It will hardly go better with what the others ask: they need not wait for that, one after the other."""
    scripted = Scripted()
    line = party(scripted)
    sound, *failing = [await begun(line, name) for name in "abcd"]
    failing[0].cancel()
    await scripted.answer()
    failing.append(await begun(line, "e"))
    await scripted.answer(TimeoutError())
    assert await sound
    for task in failing[1:]:
        with pytest.raises(TimeoutError):
            await task
    again = await begun(line, "f")
    await scripted.answer()
    assert await again, "after a failure nobody is heard any more"
    assert scripted.asked == ["a", "cd", "f"]


async def test_no_more_go_on_at_the_same_moment_than_so_many() -> None:
    scripted = Scripted()
    line = party(scripted)
    tasks = [await begun(line, "x") for _ in range(2 * MOST)]
    for _ in range(3):
        await scripted.answer()
    assert [len(each) for each in scripted.asked] == [1, MOST, MOST - 1]
    await asyncio.gather(*tasks)


async def test_all_of_it_is_done_or_nothing(stores: Stores) -> None:
    store = stores()
    line = PartyLine(store.line(5.0))
    key = store.key
    sound = line.transact([("SET", key("a"), 1), ("INCR", key("a"))])
    odd = line.transact([("SET", key("b"), 1), ("NONSENSE",)])
    wrong = line.transact([("SET", key("c"), "x"), ("INCR", key("c"))])
    told: list[Any] = await asyncio.gather(sound, odd, wrong, return_exceptions=True)
    done, *failed = told
    assert done[1:] == [2]
    assert all(isinstance(each, ResponseError) for each in failed), "what Redis refused is not told"
    assert await store.client.mget(key("a"), key("b")) == ["2", None]


async def test_it_is_told_why_nothing_was_done(stores: Stores) -> None:
    line = PartyLine(stores().line(5.0))
    with pytest.raises(RedisError, match="unknown command"):
        await line.transact([("NONSENSE",), ("PING",)])
