"""Providers that come, change and go over REST while they serve."""

import asyncio
import random
from typing import Any

import aiohttp

from bench.soak.visit import Broken

MOST, PAUSE = 6, 0.5  # guests at once, seconds between two changes, on average


class Guests:
    """They all serve the model `shared`, beside providers that stay. `ids`: who is there."""

    def __init__(self, http: aiohttp.ClientSession, chance: random.Random, upstream: str, nowhere: str):
        self.ids: list[str] = []
        self._http, self._chance = http, chance
        self._upstream, self._nowhere = upstream, nowhere

    async def come_and_go(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await asyncio.sleep(self._chance.uniform(0, 2 * PAUSE))
            await self._chance.choice((self._come, self._change, self._go))()
        while self.ids:
            await self._go()

    async def _come(self) -> None:
        if len(self.ids) == MOST:
            return
        name = f"guest-{self._chance.getrandbits(48):x}"
        wire = self._chance.choice(("openai_compatible", "anthropic"))
        base = self._upstream if wire == "anthropic" else f"{self._upstream}/v1"
        registration = {"provider_id": name, "provider_type": wire, "model_name": "fake", "base_url": base}
        await self._say("POST", "/providers/register", 201, **registration, models=["shared"], api_key="none")
        self.ids.append(name)

    async def _change(self) -> None:
        """Its place in the order, its headers, or where it listens: nowhere, so that others have to answer."""
        if self.ids:
            name = self._chance.choice(self.ids)
            changes = ({"priority": 2}, {"priority": 1}, {"headers": {"x-guest": name}}, {"base_url": self._nowhere})
            await self._say("PATCH", f"/providers/{name}", 200, **self._chance.choice(changes))

    async def _go(self) -> None:
        if self.ids:
            name = self.ids.pop(self._chance.randrange(len(self.ids)))
            await self._say("DELETE", f"/providers/{name}", 200)

    async def _say(self, method: str, path: str, expected: int, **fields: Any) -> None:
        async with self._http.request(method, path, json=fields) as response:
            if response.status != expected:
                raise Broken(f"{method} {path} is answered with {response.status} {await response.text()}")
