"""The checks pass what is good, and name the rule that is broken."""

import asyncio
import copy
from collections.abc import AsyncGenerator, Sequence
from typing import Any, ClassVar

import pytest

from proxy.adapter import Messages, Tools
from proxy.events import (
    ENDS,
    Event,
    Finish,
    ReasoningDelta,
    SourceEnd,
    Start,
    TextDelta,
    ToolInputDelta,
    Usage,
    Vendor,
)
from proxy.generator import MARKS, StreamingGenerator
from proxy.merge import Merge
from proxy.modes.standard import Standard
from proxy.testing import ScriptedAdapter, check_adapter, check_mode, says, scripted

pytestmark = pytest.mark.anyio


# Adapters


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


# Modes


class Mode(StreamingGenerator):
    """A mode that does to each event what `out` says, as it comes."""

    async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        async for event in merge:
            for it in self.out(event):
                yield it

    def out(self, event: Event) -> list[Any]:
        return [event]


class Mute(Mode):
    def out(self, event: Event) -> list[Any]:
        return [] if isinstance(event, TextDelta) else [event]


class Stuttering(Mode):
    def out(self, event: Event) -> list[Any]:
        return [event, event] if isinstance(event, TextDelta) else [event]


class Shouting(Mode):
    def out(self, event: Event) -> list[Any]:
        if isinstance(event, TextDelta):
            text = event.content.upper()
            return [TextDelta(content=text, source=event.source, index=event.index, choice=event.choice)]
        return [event]


class Meddlesome(Mode):
    def out(self, event: Event) -> list[Any]:
        if isinstance(event, TextDelta):
            event.content = event.content.upper()
        return [event]


class Thoughtless(Mode):
    def out(self, event: Event) -> list[Any]:
        return [] if isinstance(event, ReasoningDelta) else [event]


class Copying(Mode):
    def out(self, event: Event) -> list[Any]:
        return [copy.copy(event)]


class Quoting(Mode):
    """Passes on the provider's bytes with a text that is no longer the one in them."""

    def out(self, event: Event) -> list[Any]:
        if isinstance(event, TextDelta):
            return [TextDelta(content=it, raw=event.raw, source=event.source) for it in event.content]
        return [event]


class Careless(Mode):
    """Makes the text anew, and forgets what stood beside it."""

    def out(self, event: Event) -> list[Any]:
        if isinstance(event, TextDelta):
            return [TextDelta(content=event.content, source=event.source, index=event.index)]
        return [event]


class Anonymous(Mode):
    def out(self, event: Event) -> list[Any]:
        return [TextDelta(content=event.content, index=event.index)] if isinstance(event, TextDelta) else [event]


class OneChoice(Mode):
    def out(self, event: Event) -> list[Any]:
        if isinstance(event, TextDelta) and event.index:
            return [TextDelta(content=event.content, choice=event.choice, source=event.source)]
        return [event]


class Numbering(Mode):
    def out(self, event: Event) -> list[Any]:
        event.seq = 7
        return [event]


class Swallowing(Mode):
    def out(self, event: Event) -> list[Any]:
        return [] if type(event) in ENDS else [event]


class Ending(Mode):
    def out(self, event: Event) -> list[Any]:
        return [event, event] if type(event) in ENDS else [event]


class Inventing(Mode):
    def out(self, event: Event) -> list[Any]:
        return [Finish()] if type(event) in ENDS else [event]


class Impatient(Mode):
    def out(self, event: Event) -> list[Any]:
        return [event] if not isinstance(event, SourceEnd) else []


class Texting(Mode):
    def out(self, event: Event) -> list[Any]:
        return [event.content] if isinstance(event, TextDelta) else [event]


class Ticking(Mode):
    async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        merge.wake_at(0.01)
        async for event in merge:
            yield event


class Hoarding(Mode):
    """Lets text out at the end only: everything after it, and all at once."""

    async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        held: list[Event] = []
        async for event in merge:
            held.append(event)
        for event in held:
            yield event


class Late(Mode):
    """Does not let go of its text when something else comes."""

    kinds: ClassVar[frozenset[type]] = MARKS | {Vendor, ToolInputDelta}

    async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        held: list[Event] = []
        async for event in merge:
            if isinstance(event, TextDelta) and len(held) < 100:
                held.append(event)
                continue
            if type(event) in self.kinds or isinstance(event, TextDelta):
                for text in held:
                    yield text
                held = []
            yield event


class LateAndSaysSo(Late):
    reorders = True


class VeryLateAndSaysSo(LateAndSaysSo):
    """Where kinds may overtake each other, the end of a choice still may not."""

    kinds = ENDS | {SourceEnd}


class Stuck(Mode):
    async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        async for event in merge:
            yield event
            await asyncio.Event().wait()


class Clutching(Mode):
    async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        ended = False
        try:
            async for event in merge:
                ended = type(event) in ENDS
                yield event
        finally:
            if not ended:
                await asyncio.Event().wait()


@pytest.mark.parametrize("mode", [Standard, Mode, LateAndSaysSo])
async def test_a_good_mode_passes(mode: type[StreamingGenerator]) -> None:
    await check_mode(mode())


@pytest.mark.parametrize(
    ("mode", "broken"),
    [
        (Mute, "an ordinary answer: source a, .* the reader got as text of choice 0 None, and should 'Hello, world"),
        (Stuttering, "should 'Hello, world. How are you\\?'"),
        (Shouting, "got as text of choice 0 'HELLO"),
        (Meddlesome, "an event was changed"),
        (Thoughtless, "came where ReasoningDelta"),
        (Copying, "the stream ended with Finish"),
        (Quoting, "chunks: source a: TextDelta.* is not what was given"),
        (Careless, "chunks: .* got as what stood beside choice 0 None, and should {'logprobs'"),
        (Anonymous, "of no source"),
        (OneChoice, "two choices: .*text of choice 0 'The firThe sec"),
        (Numbering, "the place in the stream"),
        (Swallowing, "which is no end"),
        (Ending, "2 ends"),
        (Inventing, "its source with"),
        (Impatient, "three sources: source a: its last event is Finish.*, not its SourceEnd"),
        (Texting, "a mode yields events, not 'Hello"),
        (Ticking, "a Quiet was passed on"),
        (Hoarding, "characters were kept"),
        (Late, "pieces of vendors' chunks: source a, before ReasoningDelta"),
        (VeryLateAndSaysSo, "ordinary answer: source a, before FinishStep"),
        (Stuck, "ordinary answer: no end after 0.5 s"),
        (Clutching, "closing a stream midway"),
    ],
)
async def test_a_mode_that_breaks_a_rule_is_told_which(mode: type[StreamingGenerator], broken: str) -> None:
    with pytest.raises(AssertionError, match=broken):
        await check_mode(mode(), limit=0.5 if mode is Stuck else 20)
