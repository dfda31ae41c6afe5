"""A scripted adapter, in process, and what to play and read with it."""

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from typing import Any, cast

import aiohttp

from proxy.adapter import BaseProviderAdapter, Messages, Tools
from proxy.events import Event, Finish, FinishStep, Start, TextDelta, Usage
from proxy.provider import ProviderConfig

Played = Sequence[Event | Exception | asyncio.Event]


class ScriptedAdapter(BaseProviderAdapter):
    """Plays one of `scripts` a call, in order; the last repeats. Exceptions are raised, asyncio.Events waited for."""

    scripts: Sequence[Played] = ()

    def __init__(self, config: ProviderConfig, session: aiohttp.ClientSession):
        super().__init__(config, session)
        self.calls: list[tuple[Messages, Tools | None, dict[str, Any]]] = []  # messages, tools, kwargs

    async def stream_chat(
        self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
    ) -> AsyncGenerator[Event, None]:
        script = self.scripts[min(len(self.calls), len(self.scripts) - 1)]
        self.calls.append((messages, tools, kwargs))
        for step in script:
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, Exception):
                raise step
            else:
                yield copy.copy(step)


def scripted(provider_id: str = "a", *scripts: Played, **config: Any) -> ScriptedAdapter:
    """An adapter that plays `scripts`; `config` are fields of its ProviderConfig."""
    fields = {"provider_type": "scripted", "model_name": "scripted", **config}
    adapter = ScriptedAdapter(ProviderConfig(provider_id=provider_id, **fields), cast(aiohttp.ClientSession, None))
    adapter.scripts = scripts
    return adapter


def says(*pieces: str, usage: tuple[int, int] | None = None) -> list[Event]:
    """The events of a complete text answer."""
    counts = Usage(input_tokens=usage[0], output_tokens=usage[1]) if usage else None
    return [Start(), *(TextDelta(content=p) for p in pieces), FinishStep(reason="stop"), Finish(usage=counts)]


async def play(stream: AsyncIterable[Event]) -> list[Event]:
    """All events of a stream."""
    return [event async for event in stream]


def text_of(events: Sequence[Event]) -> str:
    """The text in `events`."""
    return "".join(event.content for event in events if isinstance(event, TextDelta))
