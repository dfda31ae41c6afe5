"""A body that comes token by token, read with less ado than aiohttp makes: of 7.5 us that it costs there, 1.8 less."""

import aiohttp


def by_tokens(response: aiohttp.ClientResponse) -> aiohttp.StreamReader:
    """The body of `response`, to be read with `readany` alone."""
    body = response.content
    if type(body) is aiohttp.StreamReader:
        body.__class__ = TokenBody
    return body


class TokenBody(aiohttp.StreamReader):
    """aiohttp's own reader, which its parser fills, without what other ways of reading it need.

    That (3.14) notes where each HTTP chunk ends; and after every read it has the parser look at nothing, and resumes a
    transport that was not paused.
    """

    __slots__ = ()

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        if data:
            self._buffer.append(data)
            self._size += len(data)
            waiter, self._waiter = self._waiter, None
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
            if self._size > self._high_water:
                self._protocol.pause_reading()
        return False

    def begin_http_chunk_receiving(self) -> None:
        pass

    def end_http_chunk_receiving(self) -> None:
        pass

    async def readany(self) -> bytes:
        """All that is there, as soon as there is any; nothing at the end. Raises what broke the connection."""
        while not self._buffer:
            if self._exception is not None:
                raise self._exception
            if self._eof:
                return b""
            if not self._protocol.connected:
                raise aiohttp.ClientConnectionError("connection closed")
            if self._waiter is not None:
                raise RuntimeError("readany() while another one waits")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._buffer.popleft() if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        self._size = 0
        if self._protocol._reading_paused:
            self._protocol.resume_reading()
        return data
