"""What a route knows of its request. Bodies that are too large or too slow: test_chat.py, over real sockets."""

from typing import Any

import pytest

from proxy.api.request import Request
from proxy.errors import RequestError
from tests.server import Server

pytestmark = pytest.mark.anyio


def asked(server: Server, *pieces: bytes) -> Request:
    """A request whose body comes in pieces."""
    coming = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    coming.append({"type": "http.request", "more_body": False})

    async def receive() -> Any:
        return coming.pop(0)

    return Request({"type": "http", "headers": [], "state": {"weir": server.weir, "id": "r1"}}, receive)


async def test_a_body_may_come_in_pieces(server: Server) -> None:
    assert await asked(server, b'{"a"', b"", b': "\xc3', b'\xa9"}').json_object() == {"a": "é"}


async def test_a_body_can_be_had_twice(server: Server) -> None:
    request = asked(server, b"{", b"}")
    assert [await request.body(), await request.body()] == [b"{}", b"{}"]


async def test_what_is_no_object_is_refused_in_words(server: Server) -> None:
    for body, said in [(b"[]", "object"), (b"", "JSON"), (b"[" * 100_000, "nested too deeply"), (b"\xff", "JSON")]:
        with pytest.raises(RequestError, match=said):
            await asked(server, body).json_object()


async def test_it_knows_its_id_and_its_weir(server: Server) -> None:
    assert (asked(server).id, asked(server).weir) == ("r1", server.weir)
