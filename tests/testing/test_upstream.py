"""The scripted upstream does what it says: a test that trusts it learns about Weir, not about it."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from proxy.testing import Answer, Fault, ScriptedUpstream, hang_before, refuse, sse, text

pytestmark = pytest.mark.anyio


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_scripts_are_played_in_order_and_the_last_repeats(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream([Answer(201), b"one"], [Answer(202), b"two"]) as upstream:
        answers = []
        for number in range(3):
            async with session.post(f"{upstream.url}/x?n={number}", json={"n": number}) as answer:
                answers.append((answer.status, await answer.read()))
    assert answers == [(201, b"one"), (202, b"two"), (202, b"two")]
    assert [request.body for request in upstream.requests] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert [request.path for request in upstream.requests] == ["/v1/x?n=0", "/v1/x?n=1", "/v1/x?n=2"]
    assert [request.connection for request in upstream.requests] == [1, 1, 1], "a complete answer ended the connection"
    assert upstream.disconnects == 0, "a client that had its answer has not gone away"


async def test_a_gate_holds_the_answer_until_the_test_says_so(session: aiohttp.ClientSession) -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream([Answer(), b"a", gate, b"b"]) as upstream, session.get(upstream.url) as answer:
        assert await answer.content.readany() == b"a"
        gate.set()
        assert await answer.content.readany() == b"b"


async def test_a_clean_end_a_closed_and_a_broken_connection_differ(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream([Answer(), b"a"], [Answer(), Fault.CLOSE], [Fault.RESET]) as upstream:
        async with session.get(upstream.url) as answer:
            assert await answer.read() == b"a"
        async with session.get(upstream.url) as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        with pytest.raises(aiohttp.ClientOSError, match="reset"):
            await session.get(upstream.url)
    assert upstream.disconnects == 0, "it was the upstream that went away"


async def fetched(url: str, session: aiohttp.ClientSession) -> bytes:
    async with session.get(url) as answer:
        return await answer.read()


async def test_a_client_that_goes_away_is_counted(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream(hang_before()) as upstream:
        async with asyncio.TaskGroup() as clients:
            asking = [clients.create_task(fetched(upstream.url, session)) for _ in range(2)]
            await upstream.until(lambda it: len(it.requests) == 2)
            for task in asking:
                task.cancel()
        await upstream.disconnected(2)
        assert upstream.disconnects == 2


async def test_nobody_listens_at_a_refusing_url(session: aiohttp.ClientSession) -> None:
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.get(refuse())


def test_an_answer_in_server_sent_events() -> None:
    assert sse("[DONE]", {"a": 1}) == b'data: [DONE]\n\ndata: {"a": 1}\n\n'
    assert len(text("Hel", "lo")) == len(["head", "role", "Hel", "lo", "finish", "usage", "DONE"])
