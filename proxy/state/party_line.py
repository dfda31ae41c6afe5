"""A line to Redis that many share: what they ask while it is busy goes together, in the next exchange."""

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Any

from proxy.state.line import Line, Words, command

MOST = 32  # who speak in one exchange: so many go on at the same moment, and the others after them
_MULTI, _EXEC = command("MULTI"), command("EXEC")


class PartyLine:
    """A task of its own speaks on it, so whoever is cancelled while he waits does the others no harm: what he asked is
    done all the same, or not.
    """

    def __init__(self, line: Line):
        self._line = line
        self._asked: list[tuple[Sequence[bytes], asyncio.Future[list[Any]]]] = []
        self._speaking: asyncio.Task[None] | None = None

    async def transact(self, commands: Sequence[Words]) -> list[Any]:
        """Has all of them done, or none, and returns what came of each.

        Raises RedisError for what Redis refused; that or OSError where nobody knows.
        """
        *queued, done = await self._ask([_MULTI, *(command(*words) for words in commands), _EXEC])
        for reply in (*queued, done, *(done if isinstance(done, list) else ())):
            if isinstance(reply, Exception):
                raise reply
        found: list[Any] = done
        return found

    async def _ask(self, commands: Sequence[bytes]) -> list[Any]:
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._asked.append((commands, answer))
        if self._speaking is None:
            self._speaking = asyncio.create_task(self._speak())
        return await answer

    async def _speak(self) -> None:
        try:
            while self._asked:
                asked, self._asked = self._asked[:MOST], self._asked[MOST:]
                await self._exchange(asked)
        finally:
            self._speaking = None

    async def _exchange(self, asked: Sequence[tuple[Sequence[bytes], asyncio.Future[list[Any]]]]) -> None:
        try:
            replies = iter(await self._line.ask([each for commands, _ in asked for each in commands]))
        except Exception as error:
            waiting, self._asked = self._asked, []  # for nothing, by the look of it
            for _, answer in (*asked, *waiting):
                if not answer.done():
                    answer.set_exception(error)
            return
        for commands, answer in asked:
            told = list(islice(replies, len(commands)))
            if not answer.done():
                answer.set_result(told)
