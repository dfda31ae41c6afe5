"""A pipeline of scripted adapters, with time in the test's hand."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal, cast

import aiohttp
import msgspec

from proxy.adapter import BaseProviderAdapter, Messages, Tools
from proxy.errors import WeirError
from proxy.events import Event
from proxy.journey import Journey
from proxy.pipeline.failover import Failover
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.routing import Router
from proxy.pipeline.stream import Stream
from proxy.provider import ProviderConfig
from proxy.registry import Registry
from proxy.request import ChatRequest
from proxy.state.sessions import SessionStore
from proxy.state.store import open_store
from proxy.testing import ScriptedAdapter
from proxy.upstream import Upstream

NO_SESSION = cast(aiohttp.ClientSession, None)


class _Never(asyncio.Event):
    """An event that no test sets, and that belongs to no loop."""

    async def wait(self) -> Literal[True]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("never happens")


HANG = _Never()


def skip(seconds: float) -> None:
    """Lets the running loop believe that so much time has passed; timers due by then fire next."""
    loop: Any = asyncio.get_running_loop()
    if not hasattr(loop, "skipped"):
        loop.skipped, real = 0.0, loop.time
        loop.time = lambda: real() + loop.skipped
    loop.skipped += seconds


async def idle() -> None:
    """Lets everything run that can."""
    for _ in range(30):
        await asyncio.sleep(0)


def request(model: str = "m", **fields: Any) -> ChatRequest:
    return ChatRequest({"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}, "r1")


class Clock:
    """Seconds since 1970, as the test says."""

    def __init__(self, now: float = 1_700_000_000.0):
        self.now = now

    def __call__(self) -> float:
        return self.now


class Probes:
    """The fleet's probes: `free` says whether another replica leaves us one; `log` tells what was asked."""

    def __init__(self) -> None:
        self.free = True
        self.log: list[tuple[str, str, int]] = []
        self.answer: asyncio.Event | None = None  # Redis takes its time

    async def claim(self, provider_id: str, generation: int) -> bool:
        self.log.append(("claim", provider_id, generation))
        if self.answer is not None:
            await self.answer.wait()
        return self.free

    async def release(self, provider_id: str, generation: int) -> None:
        self.log.append(("release", provider_id, generation))


class Answered:
    """What one request got: its events, or the error in their place."""

    def __init__(self, journey: Journey):
        self.journey = journey
        self.events: list[Event] = []
        self.error: WeirError | None = None


class House:
    """Upstreams in service, and all that decides between them. Sleeping moves the clock: `slept` says how far."""

    def __init__(self, *adapters: BaseProviderAdapter):
        self.clock = Clock()
        self.slept: list[float] = []
        self.probes = Probes()
        self.registry = Registry.with_plugins()
        self.router = Router(self.registry, NO_SESSION, self.clock)
        self.failover = Failover(self.probes, self.sleep)
        self.store = open_store(None)
        self.sessions = SessionStore(self.store, 3600)
        self.pipeline = Pipeline(self.router, self.failover, self.registry, self.sessions)
        for adapter in adapters:
            self.router._upstreams[adapter.config.provider_id] = Upstream(adapter.config, adapter, clock=self.clock)
        self.router._index()

    def __getitem__(self, provider_id: str) -> Upstream:
        upstream = self.router.get(provider_id)
        assert upstream is not None
        return upstream

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.now += seconds
        await asyncio.sleep(0)

    async def ask(self, model: str = "m", journey: Journey | None = None, **fields: Any) -> Answered:
        mode = fields.get("weir", {}).get("mode", "standard")
        answered = Answered(journey or Journey("r1", model, mode))
        try:
            async with self.pipeline.answer(request(model, **fields), Stream(answered.journey)) as events:
                async for event in events:
                    bare = {"seq": 0} if answered.journey.branches else {"seq": 0, "source": ""}
                    answered.events.append(msgspec.structs.replace(event, **bare))  # for scripts to be equal to
        except WeirError as error:
            answered.error = error
        return answered

    def open_circuit(self, provider_id: str) -> None:
        """Five failures in a row."""
        circuit = self[provider_id].circuit
        for _ in range(5):
            circuit.failed(circuit.generation, self.clock())


class Odd(ScriptedAdapter):
    """An adapter whose stream is `odd()`: for behaviour that no script describes. `closed` counts closed streams."""

    closed = 0

    async def odd(self) -> AsyncGenerator[Event, None]:
        raise NotImplementedError
        yield

    async def stream_chat(
        self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
    ) -> AsyncGenerator[Event, None]:
        self.calls.append((messages, tools, kwargs))
        try:
            async with aclosing(self.odd()) as events:
                async for event in events:
                    yield event
        finally:
            self.closed += 1


def odd(kind: type[Odd], provider_id: str = "a", **config: Any) -> Odd:
    fields = {"provider_type": "scripted", "model_name": "m", **config}
    return kind(ProviderConfig(provider_id=provider_id, **fields), NO_SESSION)
