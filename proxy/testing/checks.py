"""Checks for adapters and modes, ours and plugin authors': each tells the first rule that is broken."""

import asyncio
from collections.abc import Iterator

from proxy.adapter import BaseProviderAdapter, Messages
from proxy.events import Abort, Error, Event, Finish, Start, TextDelta, Vendor
from proxy.generator import StreamingGenerator
from proxy.testing.adapter import play, text_of
from proxy.testing.merge import merged
from proxy.testing.mode_scripts import mode_scripts
from proxy.testing.shape import shape


async def check_adapter(adapter: BaseProviderAdapter, limit: float = 60.0) -> None:
    """Asks the adapter a few times, and raises AssertionError about the first rule of `stream_chat` that it breaks.

    It yields events alone, Start first and one Finish last, with sane usage; it does not change what it was asked;
    closing it midway is prompt; two streams at once do not mix (seen if it answers the same to the same).
    """
    async with asyncio.timeout(limit):
        one, two, again = [await _asked(adapter, word) for word in ("one", "two", "one")]
        stream = adapter.stream_chat([{"role": "user", "content": "Say much."}])
        await anext(stream)
        closed, _ = await asyncio.wait([asyncio.ensure_future(stream.aclose())], timeout=1)
        assert closed, "closing a stream midway took more than a second"
        closed.pop().result()
        both = await asyncio.gather(_asked(adapter, "one"), _asked(adapter, "two"))
    assert one != again or [*both] == [one, two], f"two streams at once mix: {both} is not {[one, two]}"


async def _asked(adapter: BaseProviderAdapter, word: str) -> str:
    messages: Messages = [{"role": "user", "content": f"Say {word}."}]
    events = await play(adapter.stream_chat(messages, None, user="check_adapter", x_unknown=True))
    assert messages == [{"role": "user", "content": f"Say {word}."}], f"the messages were changed: {messages}"
    for event in events:
        assert isinstance(event, Event), f"a stream yields events, not {event!r}"
        assert not isinstance(event, Error | Abort), f"an adapter raises ProviderError, it does not yield {event!r}"
    first = next((event for event in events if not isinstance(event, Vendor)), None)
    assert isinstance(first, Start), f"a stream begins with Start, not {first}"
    *before, last = events
    assert isinstance(last, Finish), f"a stream ends with Finish, not {last}"
    assert not any(isinstance(event, Finish) for event in before), "a stream has only one Finish"
    tokens = (last.usage.input_tokens, last.usage.output_tokens) if last.usage else (0, 0)
    assert min(tokens) >= 0, f"tokens are counted from 0: {tokens}"
    return text_of(events)


MOST_KEPT = 512 * 1024  # characters that a mode, and what it reads, may have taken and not passed on


async def check_mode(mode: StreamingGenerator, limit: float = 60.0) -> None:
    """Shapes many scripted streams with `mode`, and raises AssertionError about the first rule that it breaks.

    The rules are those of StreamingGenerator; besides, closing its stream midway is prompt. Time is the merge's,
    and skipped: a mode that waits by other means than `wake_at` and `until` really waits. `limit`: real seconds.
    """
    doing = ""
    try:
        async with asyncio.timeout(limit):
            for doing in mode_scripts():
                for pause in (0.0, 0.03):
                    await shape(mode.model_copy(), mode_scripts()[doing], pause)
            doing = "a source without bounds"
            await _check_bound(mode.model_copy())
    except AssertionError as error:
        raise AssertionError(f"{doing}: {error}") from None
    except TimeoutError:
        raise AssertionError(f"{doing}: no end after {limit:g} s") from None


async def _check_bound(mode: StreamingGenerator) -> None:
    """A source that never stops, and says nothing at which text could be cut."""
    said = heard = 0

    def endless() -> Iterator[Event]:
        nonlocal said
        while said < 4 * MOST_KEPT:
            said += 100
            yield TextDelta(content="x" * 100)
        yield Finish()

    async with merged(endless()) as merge:
        stream = mode.generate(merge)
        while heard < 1000:
            event = await anext(stream)
            heard += len(event.content) if isinstance(event, TextDelta) else 0
            assert said - heard <= MOST_KEPT, f"{said - heard} characters were kept: the source is not held back"
            await merge.clock.sleep(0.01)
        closed, _ = await asyncio.wait([asyncio.ensure_future(stream.aclose())], timeout=1)
        assert closed, "closing a stream midway took more than a second"
        closed.pop().result()
