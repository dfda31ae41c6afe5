"""Sockets are counted, can be listed, and can be spoken to."""

import msgspec
import pytest

from proxy.sockets import Sockets
from proxy.tally import Meter
from tests.journeys import Clock

pytestmark = pytest.mark.anyio


class Outlet:
    """Anybody's WebSocket that can send a text."""

    def __init__(self, *, broken: bool = False):
        self.broken = broken
        self.sent: list[object] = []

    async def send_text(self, data: str) -> None:
        if self.broken:
            raise ConnectionError
        self.sent.append(msgspec.json.decode(data))


def house() -> tuple[Sockets, Meter]:
    meter = Meter(Clock())
    return Sockets(meter, Clock(1000.0)), meter


async def test_a_message_goes_to_one_connection_or_to_all_of_a_user() -> None:
    sockets, _ = house()
    outlets = [Outlet(), Outlet(), Outlet()]
    one, _, _ = (sockets.add_connection(it, user, "s") for it, user in zip(outlets, ("ann", "ann", "bob"), strict=True))
    assert await sockets.send_message("ann", {"data": {"text": "hi"}}) == 2
    assert await sockets.send_message(one.id, {"message_type": "notice"}) == 1
    assert await sockets.send_message("nobody", {}) == 0
    told = {"message_type": "message", "data": {"text": "hi"}}
    assert [outlet.sent for outlet in outlets] == [[told, {"message_type": "notice"}], [told], []]


async def test_one_that_breaks_keeps_nothing_from_the_others() -> None:
    sockets, _ = house()
    broken, whole = Outlet(broken=True), Outlet()
    for outlet in (broken, whole):
        sockets.add_connection(outlet, "ann", "s")
    assert await sockets.send_message("ann", {}) == 1
    assert len(whole.sent) == 1


async def test_the_figures_that_replicas_share() -> None:
    sockets, meter = house()
    ann, _ = (sockets.add_connection(Outlet(), user, "s") for user in ("ann", "bob"))
    assert meter.active == 2
    sockets.messages |= {"messages_in": 2, "messages_out": 5}
    assert meter.tallies["total"].others == {}, "nothing is counted with every message"
    sockets.count()
    sockets.count()
    assert meter.tallies["total"].others == {"messages_in": 2, "messages_out": 5}, "what is counted is counted once"
    sockets.messages["messages_out"] = 6
    sockets.remove_connection(ann)
    sockets.remove_connection(ann)
    assert meter.active == 1
    assert meter.tallies["total"].others == {"messages_in": 2, "messages_out": 6}


async def test_statistics_tell_who_is_there_and_what_has_passed() -> None:
    sockets, _ = house()
    assert sockets.get_statistics() == {
        "connections": 0,
        "users": 0,
        "chats": 0,
        "messages_in": 0,
        "messages_out": 0,
        "sockets": [],
    }
    gone, here = (sockets.add_connection(Outlet(), "ann", session) for session in ("s1", "s2"))
    sockets.messages |= {"messages_in": 3, "messages_out": 3}
    here.chats = 4
    sockets.remove_connection(gone)
    assert sockets.get_statistics() == {
        "connections": 1,
        "users": 1,
        "chats": 4,
        "messages_in": 3,
        "messages_out": 3,
        "sockets": [
            {"connection_id": here.id, "user_id": "ann", "session_id": "s2", "since": 1000.0, "chats": 4},
        ],
    }
    assert [it.id for it in sockets] == [here.id]
