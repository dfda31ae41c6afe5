"""Who is connected over WebSocket: to be counted, and to be spoken to by a program around Weir."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from proxy.tally import Meter

SOCKETS = "~websocket"  # their name among the figures; no provider's can be the same


class Outlet(Protocol):
    """What a message is sent through: a socket of ours, or of somebody else's framework."""

    async def send_text(self, data: str) -> None: ...


class Connected:
    """One socket that is open. `chats` is how many run on it; `since` is in seconds since 1970."""

    def __init__(self, websocket: Outlet, user_id: str, session_id: str, since: float):
        self.id = secrets.token_hex(8)
        self.websocket = websocket
        self.user_id = user_id
        self.session_id = session_id
        self.since = since
        self.chats = 0


class Sockets:
    """The sockets of this replica. Their sum over all replicas is in the figures that `meter` belongs to.

    `messages` counts those that have come and gone since it started.
    """

    def __init__(self, meter: Meter, clock: Callable[[], float] = time.time):
        self._meter = meter
        self._clock = clock
        self._open: dict[str, Connected] = {}
        self.messages = {"messages_in": 0, "messages_out": 0}
        self._counted = dict(self.messages)  # of these, are among the figures

    def __iter__(self) -> Iterator[Connected]:
        return iter(list(self._open.values()))

    def add_connection(self, websocket: Outlet, user_id: str, session_id: str) -> Connected:
        """Its `id` is what `send_message` finds it by."""
        connected = Connected(websocket, user_id, session_id, self._clock())
        self._open[connected.id] = connected
        self._meter.active += 1
        return connected

    def remove_connection(self, connected: Connected) -> None:
        if self._open.pop(connected.id, None):
            self._meter.active -= 1
            self.count()

    def count(self) -> None:
        """Brings the figures up to date: at the end of a chat, for with each message it would cost more than that."""
        for name, now in self.messages.items():
            self._meter.add(name, now - self._counted[name])
        self._counted = dict(self.messages)

    async def send_message(self, to: str, message: Mapping[str, Any]) -> int:
        """Sends `message` to the connection of that id, or to all of that user's; to how many that was.

        On the wire it is a frame like any other: its `message_type` is `message`, unless it has one. Waits for slow
        clients, for `stall` seconds at most.
        """
        text = msgspec.json.encode({"message_type": "message", **message}).decode()
        found = [it for it in self if to in (it.id, it.user_id)]
        results = await asyncio.gather(*(it.websocket.send_text(text) for it in found), return_exceptions=True)
        return sum(not isinstance(result, BaseException) for result in results)

    def get_statistics(self) -> dict[str, Any]:
        """What is connected to this replica now, and how many messages have come and gone since it started."""
        return {
            "connections": len(self._open),
            "users": len({it.user_id for it in self}),
            "chats": sum(it.chats for it in self),
            **self.messages,
            "sockets": [
                {
                    "connection_id": it.id,
                    "user_id": it.user_id,
                    "session_id": it.session_id,
                    "since": it.since,
                    "chats": it.chats,
                }
                for it in self
            ],
        }
