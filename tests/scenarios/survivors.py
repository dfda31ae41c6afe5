"""Replicas on one Redis that are killed, and come back."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.process import Weir, weir


def config(upstream: str) -> str:
    """A providers.yaml with one provider at `upstream`, that goes on with what an assistant has begun."""
    main = f"provider_id: main, provider_type: openai_compatible, model_name: m, base_url: '{upstream}', prefill: true"
    return f"providers: [{{{main}, retry: {{max_attempts: 1}}}}]"


class Replica:
    """A place at which a Weir runs, most of the time."""

    def __init__(self, path: Path, upstream: str, environment: dict[str, str]):
        self._path = path
        self._upstream = upstream
        self._environment = environment
        self._stack = AsyncExitStack()
        self.lives = False  # whether one may turn to it

    @property
    def url(self) -> str:
        return self.served.url

    async def start(self) -> None:
        started = weir(self._path, config(self._upstream), **self._environment)
        self.served: Weir = await self._stack.enter_async_context(started)
        self.lives = True

    def leave(self, sig: signal.Signals) -> None:
        """It is told to, and nobody turns to it from now on."""
        self.lives = False
        self.served.signal(sig)

    async def kill(self) -> None:
        self.leave(signal.SIGKILL)
        await self.served.ended()

    def pause(self) -> None:
        """It sleeps: its connections stay, and nothing is answered."""
        self.leave(signal.SIGSTOP)

    def resume(self) -> None:
        self.served.signal(signal.SIGCONT)
        self.lives = True

    async def close(self) -> None:
        await self._stack.aclose()


class Survivors(list[Replica]):
    def any(self, chance: random.Random, but: object = None) -> Replica:
        """One that lives, and another than `but` if there is one."""
        living = [it for it in self if it.lives]
        return chance.choice([it for it in living if it is not but] or living)


@asynccontextmanager
async def survivors(path: Path, upstream: str, count: int = 3, **environment: str) -> AsyncIterator[Survivors]:
    async with AsyncExitStack() as stack:
        found = Survivors()
        for number in range(count):
            folder = path / f"replica-{number}"
            folder.mkdir()
            found.append(Replica(folder, upstream, environment))
            stack.push_async_callback(found[-1].close)
        await asyncio.gather(*(replica.start() for replica in found))
        yield found
