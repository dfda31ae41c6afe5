"""What goes out on a socket: in turn, for as long as somebody takes it, and never for ever."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.websockets import WebSocket

from proxy.api.outbox import CLOSING, Outbox
from proxy.connection import ABORT
from tests.journeys import idle, skip

pytestmark = pytest.mark.anyio

Message = dict[str, Any]
STALL = 60.0


class Peer:
    """The other side of a socket that has been accepted. `room` set: it takes what it is sent."""

    def __init__(self, fails: Callable[[], Exception] | None = None):
        self.room = asyncio.Event()
        self.room.set()
        self.given: list[Message] = []
        self.aborts = 0
        self._fails = fails

    async def socket(self) -> WebSocket:
        scope = {"type": "websocket", "extensions": {ABORT: {"call": self._abort}}}
        websocket = WebSocket(scope, self._receive, self._send)  # type: ignore[arg-type]
        await websocket.accept()
        self.given.clear()
        return websocket

    async def _receive(self) -> Message:
        return {"type": "websocket.connect"}

    async def _send(self, message: Message) -> None:
        await self.room.wait()
        if self._fails and message["type"] != "websocket.accept":
            raise self._fails()
        self.given.append(message)

    def _abort(self) -> None:
        self.aborts += 1


def texts(peer: Peer) -> list[str]:
    return [message["text"] for message in peer.given]


async def test_messages_go_one_at_a_time_in_the_order_in_which_they_were_sent() -> None:
    peer = Peer()
    outbox = Outbox(await peer.socket(), STALL)
    peer.room.clear()
    sending = [asyncio.ensure_future(outbox.send(text)) for text in "abc"]
    await idle()
    assert not any(task.done() for task in sending), "who sends waits for the client"
    peer.room.set()
    await asyncio.gather(*sending)
    assert texts(peer) == ["a", "b", "c"]
    outbox.leave()


async def test_a_close_comes_after_what_is_being_sent() -> None:
    peer = Peer()
    outbox = Outbox(await peer.socket(), STALL)
    peer.room.clear()
    sending = [asyncio.ensure_future(outbox.send("a")), asyncio.ensure_future(outbox.close(1012, "why"))]
    await idle()
    peer.room.set()
    await asyncio.gather(*sending)
    assert peer.given[-1] == {"type": "websocket.close", "code": 1012, "reason": "why"}
    assert outbox.gone
    assert not peer.aborts, "the server sees to the rest"


async def test_a_client_without_room_for_the_close_is_dropped() -> None:
    peer = Peer()
    outbox = Outbox(await peer.socket(), STALL)
    peer.room.clear()
    closing = asyncio.ensure_future(outbox.close(1008, "why"))
    await idle()
    skip(CLOSING)
    await asyncio.wait_for(closing, 5)
    assert (outbox.gone, peer.aborts) == (True, 1)


async def test_a_client_that_takes_nothing_is_dropped() -> None:
    peer = Peer()
    outbox = Outbox(await peer.socket(), STALL)
    await outbox.send("taken")
    skip(STALL * 0.9)
    peer.room.clear()
    sending = asyncio.ensure_future(outbox.send("not taken"))
    await idle()
    skip(STALL * 0.9)
    await idle()
    assert not outbox.gone, "it has had this for less than the time it has"
    skip(STALL * 0.2)
    await idle()
    assert (outbox.gone, peer.aborts) == (True, 1)
    sending.cancel()


async def test_silence_is_no_stall() -> None:
    peer = Peer()
    outbox = Outbox(await peer.socket(), STALL)
    for _ in range(5):
        skip(STALL * 2)
        await idle()
    assert not outbox.gone
    await outbox.send("still here")
    assert texts(peer) == ["still here"]
    outbox.leave()


@pytest.mark.parametrize(
    "failure",
    [lambda: OSError("gone"), lambda: RuntimeError("Unexpected ASGI message 'websocket.send'")],
    ids=["the client has gone", "the server has closed it"],
)
async def test_what_is_sent_to_nobody_is_dropped(failure: Callable[[], Exception]) -> None:
    peer = Peer(failure)
    outbox = Outbox(await peer.socket(), STALL)
    await outbox.send("a")
    assert outbox.gone
    await outbox.send("b")
    await outbox.close(1000, "")
    assert peer.given == []
