"""Commands that go to Redis many at once, as they stand on the wire.

What redis-py's pipelines do around each command, and around each batch, costs several times what the commands cost.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis.exceptions import ReadOnlyError, ResponseError

from proxy.deadline import Deadline

SLOWEST = 10e6  # bytes a second that a network carries at least: a request that is kept may have many

Words = tuple[str | bytes | int, ...]  # of a command


class Line:
    """A connection on which one exchange comes after the other; nothing is ever sent twice.

    It is one of `client`'s, and closes with it: one that has no patience of its own, for `patience` is that of a whole
    exchange, connecting included.
    """

    def __init__(self, client: Any, patience: float):
        self._pool = client.connection_pool
        self._patience = patience
        self._connection: Any = None
        self._speaking = asyncio.Lock()
        self._deadline: Deadline | None = None
        self._excused = False

    async def ask(self, commands: Sequence[bytes]) -> list[Any]:
        """What Redis says to each of them; an error is a value, too.

        Raises RedisError, OSError where that is not known, be it that some of it has been heard.
        """
        async with self._speaking:
            deadline = self._deadline = self._deadline or Deadline(self._excuse)
            self._excused = False
            patience = self._patience + sum(map(len, commands)) / SLOWEST
            deadline.expect(patience / 2)
            try:
                replies = await self._exchange(commands)
            except BaseException:
                if deadline.interrupted():
                    deadline.restart(math.inf)
                    raise TimeoutError(f"no answer within {patience:g} s") from None
                raise
            deadline.received()
            return replies

    def _excuse(self) -> bool:
        """When half of the time is over: if it was this process that was busy, the answer is there and will be seen."""
        first, self._excused = not self._excused, True
        return first

    async def _exchange(self, commands: Sequence[bytes]) -> list[Any]:
        connection, replies = await self._connected(), list[Any]()
        await connection.send_packed_command(b"".join(commands))
        read = connection.read_response  # which hangs up where it is interrupted
        for _ in commands:
            try:
                replies.append(await read())
            except ResponseError as error:
                replies.append(error)
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            await connection.disconnect(nowait=True)  # the host's name may lead to another server by now
        return replies

    async def _connected(self) -> Any:
        connection = self._connection
        if connection is None:
            connection = self._connection = await self._pool.get_connection()
        elif not connection.is_connected or await connection.can_read():  # it was closed, or holds what nobody asked
            await connection.disconnect(nowait=True)
            await connection.connect()
        return connection


def command(*words: str | bytes | int) -> bytes:
    """A command as it stands on the wire."""
    packed: bytes = pack_command(words)  # type: ignore[arg-type]  # its annotation speaks of one word
    return packed
