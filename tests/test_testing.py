"""The doubles do what they say: a test that trusts them learns about Weir, not about them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import aiohttp
import pytest

from proxy.adapter import Messages, Tools
from proxy.errors import Kind, ProviderError
from proxy.events import Event, Finish, Start, TextDelta, Usage
from proxy.testing import (
    Answer,
    Fault,
    ScriptedAdapter,
    ScriptedUpstream,
    check_adapter,
    hang_before,
    play,
    refuse,
    says,
    scripted,
    sse,
    text,
    text_of,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


# The upstream


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


# The adapter


async def test_scripted_events_are_played_and_calls_are_kept() -> None:
    adapter = scripted("b", says("Hel", "lo", usage=(5, 2)), says("again"), priority=7)
    events = await play(adapter.stream_chat([{"role": "user"}], None, n=1))
    assert events == says("Hel", "lo", usage=(5, 2))
    assert text_of(events) == "Hello"
    assert [text_of(await play(adapter.stream_chat([]))) for _ in range(2)] == ["again", "again"]
    assert adapter.calls[0] == ([{"role": "user"}], None, {"n": 1})
    assert (adapter.config.provider_id, adapter.config.priority) == ("b", 7)


async def test_a_scripted_exception_is_raised_and_an_event_is_waited_for() -> None:
    gate = asyncio.Event()
    stream = scripted("a", [Start(), gate, ProviderError(Kind.CUT, "cut")]).stream_chat([])
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.set()
    with pytest.raises(ProviderError, match="cut"):
        await waiting


# The check


class Mixing(ScriptedAdapter):
    """Keeps what belongs to a stream in itself."""

    async def stream_chat(
        self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
    ) -> AsyncGenerator[Event, None]:
        self.rest = ["a", "b"]
        yield Start()
        while self.rest:
            await asyncio.sleep(0)
            if self.rest:
                yield TextDelta(content=self.rest.pop(0))
        yield Finish()


class Meddling(ScriptedAdapter):
    async def stream_chat(
        self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
    ) -> AsyncGenerator[Event, None]:
        messages.append({"role": "assistant"})
        for event in says("a"):
            yield event


class Clinging(ScriptedAdapter):
    async def stream_chat(
        self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
    ) -> AsyncGenerator[Event, None]:
        try:
            for event in says("a"):
                yield event
        finally:
            if "much" in messages[0]["content"]:
                await asyncio.Event().wait()


async def test_a_good_adapter_passes() -> None:
    await check_adapter(scripted("a", says("Hel", "lo")))


@pytest.mark.parametrize(
    ("script", "broken"),
    [
        ([], "begins with Start"),
        ([TextDelta(content="a"), Finish()], "begins with Start"),
        ([Start(), TextDelta(content="a")], "ends with Finish"),
        ([Start(), Finish(), TextDelta(content="a")], "ends with Finish"),
        ([Start(), Finish(), Finish()], "only one Finish"),
        ([Start(), "text", Finish()], "yields events"),
        ([Start(), Finish(usage=Usage(input_tokens=-1))], "counted from 0"),
    ],
)
async def test_a_broken_rule_is_named(script: Sequence[Any], broken: str) -> None:
    with pytest.raises(AssertionError, match=broken):
        await check_adapter(scripted("a", script))


@pytest.mark.parametrize(
    ("kind", "broken"), [(Mixing, "mix"), (Meddling, "messages were changed"), (Clinging, "closing a stream midway")]
)
async def test_a_broken_adapter_is_found(kind: type[ScriptedAdapter], broken: str) -> None:
    good = scripted("a")
    with pytest.raises(AssertionError, match=broken):
        await check_adapter(kind(good.config, good.session))
