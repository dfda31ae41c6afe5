"""The scripted adapter plays what it was given."""

import asyncio

import pytest

from proxy.errors import Kind, ProviderError
from proxy.events import Start
from proxy.testing import play, says, scripted, text_of

pytestmark = pytest.mark.anyio


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
