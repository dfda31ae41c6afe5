"""What goes out on a WebSocket: one message at a time, each once the client has room for it."""

import asyncio

from starlette.websockets import WebSocket, WebSocketDisconnect

from proxy.connection import ABORT

CLOSING = 1.0  # seconds for the client to make room for the message that says why it is closed


class Outbox:
    """Nothing is kept here: whoever sends waits for their turn, and so holds their own provider back.

    `gone`: nobody is there any more, and what is sent is dropped. A client that takes nothing for `stall` seconds is.
    """

    def __init__(self, websocket: WebSocket, stall: float):
        self._websocket = websocket
        self._stall = stall
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._since: float | None = None  # when the client was given what it has not taken yet
        self._look_up = self._loop.call_later(stall, self._look)  # one timer for all that is ever sent
        self.gone = False

    async def send(self, text: str) -> None:
        async with self._turn:
            if self.gone:
                return
            self._since = self._loop.time()
            try:
                await self._websocket.send({"type": "websocket.send", "text": text})
            except (WebSocketDisconnect, RuntimeError):  # the latter once uvicorn has closed it for its own reasons
                self.leave()
            finally:
                self._since = None

    async def close(self, code: int, reason: str) -> None:
        """After what is being sent. A client that has no room even for this is dropped."""
        try:
            async with asyncio.timeout(CLOSING), self._turn:
                if not self.gone:
                    await self._websocket.close(code, reason)
        except TimeoutError:
            self.drop()
        except (WebSocketDisconnect, RuntimeError):
            pass
        self.leave()

    def drop(self) -> None:
        """Ends the connection at once, where the server lets us, with what the client has not taken."""
        self.leave()
        if abort := self._websocket.scope.get("extensions", {}).get(ABORT):
            abort["call"]()

    def leave(self) -> None:
        self.gone = True
        self._look_up.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if self._since is not None and now - self._since >= self._stall:
            self.drop()
        else:
            self._look_up = self._loop.call_at((self._since or now) + self._stall, self._look)
