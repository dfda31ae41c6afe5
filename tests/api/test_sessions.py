"""GET and DELETE /api/streaming/sessions: what its owner may see, and that nobody else finds anything there."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.session.conversation import AnswerRecord, Feedback, Spent, owner
from proxy.state.sessions import SessionRef
from tests.redis_server import free_port
from tests.server import Server, serving

pytestmark = pytest.mark.anyio

ROOT = "/api/streaming/sessions"


async def talk(server: Server, id: str = "chat-1", user_id: str | None = None, key: str | None = None) -> SessionRef:
    """One turn that was answered."""
    ref = SessionRef.of(owner(key, user_id), id)
    begun = await server.weir.sessions.begin(ref, [{"role": "user", "content": "hi"}], "stream-1")
    said = {"role": "assistant", "content": "hello 漢字"}
    answers = [AnswerRecord(provider="main", end="finish", message=said, usage=Spent(3, 5), source="fast")]
    await server.weir.sessions.end(ref, begun.turn, answers)
    return ref


@pytest.fixture
async def guarded() -> AsyncIterator[Server]:
    async with serving(api_keys=["key-1", "key-2"]) as running:
        yield running


async def test_a_session_is_shown_with_everything_in_it(server: Server) -> None:
    ref = await talk(server)
    await server.weir.sessions.add_feedback(ref, Feedback(stream_id="stream-1", position=4, rating="up"))
    await server.weir.sessions.begin(ref, [{"role": "user", "content": "more"}], "stream-2")
    got = await server.ask("GET", f"{ROOT}/chat-1")
    assert got.status == 200
    assert got.headers["cache-control"] == "no-store"
    first, second = got.body["turns"]
    assert (got.body["id"], got.body["created"]) == ("chat-1", first["began"])
    assert got.body["updated"] >= first["ended"]
    assert got.body["totals"] == {"turns": 2, "input_tokens": 3, "output_tokens": 5}
    assert (first["state"], first["stream_id"]) == ("finished", "stream-1")
    assert first["messages"] == [{"role": "user", "content": "hi"}]
    assert first["answers"] == [
        {
            "provider": "main",
            "source": "fast",
            "end": "finish",
            "message": {"role": "assistant", "content": "hello 漢字"},
            "usage": {"input_tokens": 3, "output_tokens": 5},
        }
    ]
    assert (second["state"], second["ended"], second["answers"]) == ("running", None, [])
    (feedback,) = got.body["feedback"]
    assert (feedback["stream_id"], feedback["position"], feedback["rating"]) == ("stream-1", 4, "up")


async def test_an_export_is_the_same_as_a_file(server: Server) -> None:
    await talk(server, "a:b.c-d_e")
    got = await server.ask("GET", f"{ROOT}/a:b.c-d_e/export")
    assert got.headers["content-disposition"] == 'attachment; filename="session-a_b.c-d_e.json"'
    assert got.headers["content-type"] == "application/json"
    assert got.headers["cache-control"] == "no-store"
    assert got.body == (await server.ask("GET", f"{ROOT}/a:b.c-d_e")).body


async def test_a_deleted_session_is_gone(server: Server) -> None:
    await talk(server)
    got = await server.ask("DELETE", f"{ROOT}/chat-1")
    assert (got.status, got.body) == (200, {"id": "chat-1", "deleted": True})
    for method in ("GET", "DELETE"):
        assert (await server.ask(method, f"{ROOT}/chat-1")).status == 404
    assert (await server.ask("GET", ROOT)).body == {"sessions": []}


async def test_sessions_are_listed_by_user(server: Server) -> None:
    for id, user_id in (("a", "ann"), ("b", "ann"), ("c", "bob"), ("d", None)):
        await talk(server, id, user_id)

    async def listed(query: str) -> list[str]:
        return [it["id"] for it in (await server.ask("GET", f"{ROOT}?{query}")).body["sessions"]]

    assert await listed("user_id=ann") == ["b", "a"]
    assert await listed("user_id=bob") == ["c"]
    assert await listed("") == ["d"]
    assert await listed("user_id=") == ["d"]
    assert await listed("user_id=nobody") == []
    (newest,) = (await server.ask("GET", f"{ROOT}?user_id=ann&limit=1")).body["sessions"]
    assert newest.keys() == {"id", "updated", "turns"}
    assert newest["turns"] == 1
    assert await listed(f"user_id=ann&before={newest['updated']}") == ["a"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "before=nan", "before=inf", "before=-inf", "before=x"]
)
async def test_a_wrong_page_is_refused(query: str, server: Server) -> None:
    got = await server.ask("GET", f"{ROOT}?{query}")
    assert (got.status, got.body["error"]["param"]) == (400, query.partition("=")[0])
    assert not server.weir.store.away, "Redis was asked for nonsense"


async def test_whoever_has_another_key_or_name_finds_nothing(guarded: Server) -> None:
    await talk(guarded, user_id="ann", key="key-1")
    right: dict[str, Any] = {"authorization": "Bearer key-1"}
    others = [("ann", "key-2"), ("bob", "key-1"), ("", "key-1"), ("Ann", "key-1"), ("ann ", "key-1")]
    for user_id, key in others:
        for method, path in (("GET", ""), ("GET", "/export"), ("DELETE", "")):
            foreign = await guarded.ask(method, f"{ROOT}/chat-1{path}?user_id={user_id}", x_api_key=key)
            absent = await guarded.ask(method, f"{ROOT}/chat-9{path}?user_id={user_id}", x_api_key=key)
            assert foreign.status == absent.status == 404
            assert foreign.message.replace("chat-1", "") == absent.message.replace("chat-9", ""), (
                "it tells that it is there"
            )
            assert foreign.body["error"]["code"] == "session_not_found"
        assert (await guarded.ask("GET", f"{ROOT}?user_id={user_id}", x_api_key=key)).body == {"sessions": []}
    assert (await guarded.ask("GET", f"{ROOT}/chat-1?user_id=ann", **right)).status == 200
    assert (await guarded.ask("GET", f"{ROOT}/chat-1?user_id=ann", x_api_key="key-1")).status == 200, (
        "however it is sent"
    )


@pytest.mark.parametrize("id", ["%20", "a%20b", "%E6%BC%A2", "a%00", "x" * 129, "%2e%2e", "*", "a%0a"])
async def test_an_id_that_is_none_is_refused(id: str, server: Server) -> None:
    for method in ("GET", "DELETE"):
        code, body = await server.raw(f"{method} {ROOT}/{id} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        assert code == 400, body
        assert b"session_id" in body


async def test_without_redis_it_is_a_503() -> None:
    async with serving(redis_url=f"redis://127.0.0.1:{free_port()}") as server:
        for method, path in (("GET", ""), ("GET", "/chat-1"), ("GET", "/chat-1/export"), ("DELETE", "/chat-1")):
            got = await server.ask(method, ROOT + path)
            assert (got.status, got.body["error"]["code"]) == (503, "store_unavailable")
