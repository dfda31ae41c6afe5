"""A line to Redis that many share: what they ask while it is busy goes together, in the next exchange."""

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from proxy.state.line import Line, Words, command

MOST = 32  # who speak in one exchange: so many go on at the same moment, and the others after them
_MULTI, _EXEC = command("MULTI"), command("EXEC")


class PartyLine:
    """A task of its own speaks on it, so whoever is cancelled while he waits does the others no harm: what he asked is
    not done, unless it was being asked already.
    """

    def __init__(self, line: Line):
        self._line = line
        self._asked: list[_Asked] = []
        self._speaking: asyncio.Task[None] | None = None

    async def transact(self, commands: Sequence[Words], *, anyway: bool = False) -> list[Any]:
        """Has all of them done, or none, and returns what came of each; `anyway`: also where nobody waits for it.

        Raises RedisError for what Redis refused; that or OSError where nobody knows.
        """
        *queued, done = await self._ask([_MULTI, *(command(*words) for words in commands), _EXEC], anyway)
        for reply in (*queued, done, *(done if isinstance(done, list) else ())):
            if isinstance(reply, Exception):
                raise reply
        found: list[Any] = done
        return found

    async def _ask(self, commands: Sequence[bytes], anyway: bool) -> list[Any]:
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._asked.append(_Asked(commands, answer, anyway))
        if self._speaking is None:
            self._speaking = asyncio.create_task(self._speak())
        return await answer

    async def _speak(self) -> None:
        try:
            while self._asked:
                asked, self._asked = self._asked[:MOST], self._asked[MOST:]
                await self._exchange([it for it in asked if it.anyway or not it.answer.cancelled()])
        finally:
            self._speaking = None

    async def _exchange(self, asked: Sequence["_Asked"]) -> None:
        if not asked:
            return
        try:
            replies = iter(await self._line.ask([each for it in asked for each in it.commands]))
        except BaseException as error:
            waiting, self._asked = self._asked, []  # for nothing, by the look of it
            told = error if isinstance(error, Exception) else ConnectionError("nobody speaks on this line any more")
            for it in (*asked, *waiting):
                if not it.answer.done():
                    it.answer.set_exception(told)
            if told is not error:
                raise
            return
        for it in asked:
            found = list(islice(replies, len(it.commands)))
            if not it.answer.done():
                it.answer.set_result(found)


class _Asked(NamedTuple):
    commands: Sequence[bytes]
    answer: asyncio.Future[list[Any]]
    anyway: bool
