"""JSON in and out. Bodies that are too large, too slow or not JSON at all: test_chat.py, over real sockets."""

import msgspec
import pytest

from proxy.api.json import json_response, read_object
from proxy.errors import RequestError
from tests.server import Server

pytestmark = pytest.mark.anyio


def test_an_answer_says_that_it_is_json() -> None:
    answer = json_response({"a": "漢"}, 418, {"x-a": "1"})
    assert (answer.status_code, bytes(answer.body)) == (418, '{"a":"漢"}'.encode())
    assert (answer.headers["content-type"], answer.headers["x-a"]) == ("application/json", "1")


class Pieces:
    """A request whose body comes in pieces."""

    def __init__(self, server: Server, *pieces: bytes):
        self.headers: dict[str, str] = {}
        self.state = type("State", (), {"weir": server.weir})
        self._pieces = pieces

    async def stream(self):  # type: ignore[no-untyped-def]
        for piece in self._pieces:
            yield piece


async def test_a_body_may_come_in_pieces(server: Server) -> None:
    assert await read_object(Pieces(server, b'{"a"', b"", b': "\xc3', b'\xa9"}')) == {"a": "é"}  # type: ignore[arg-type]


async def test_what_is_no_object_is_refused_in_words(server: Server) -> None:
    for body, said in [(b"[]", "object"), (b"", "JSON"), (b"[" * 100_000, "nested too deeply"), (b"\xff", "JSON")]:
        with pytest.raises(RequestError, match=said):
            await read_object(Pieces(server, body))  # type: ignore[arg-type]
    assert msgspec.json.decode(json_response(None).body) is None
