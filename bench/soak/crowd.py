"""Clients, each of which asks in one way and then in another; and what has become of their streams."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from bench.soak.guests import Guests
from bench.soak.served import ADMIN, CLIENT
from bench.soak.visit import PATIENCE, Broken, Left, Visit
from bench.soak.ways import WAYS

CLIENTS = 50  # at all times


@dataclass
class Report:
    """By ways: how many got all they were to get, how many left. `durable`: the ids of all streams that were kept."""

    whole: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    durable: set[str] = field(default_factory=set)


class Crowd:
    """Comes to Weir at `url`. At `upstream` are the providers that come and go meanwhile, at `nowhere` is none."""

    def __init__(self, url: str, chance: random.Random, upstream: str, nowhere: str):
        self.report = Report()
        self._url = url
        self._chance = chance
        self._upstream, self._nowhere = upstream, nowhere

    @property
    def streams(self) -> int:
        return self.report.whole.total() + self.report.left.total()

    def unseen(self) -> list[str]:
        """The ways by which nobody has been given all that he was to get."""
        return [way.__name__ for way in WAYS if not self.report.whole[way.__name__]]

    async def stay(self, seconds: float) -> None:
        """They come, stay for so long, and have all gone at the end."""
        over = asyncio.Event()
        async with self._http(CLIENT) as http, self._http(ADMIN) as admin:
            guests = Guests(admin, self._one_more(), self._upstream, self._nowhere)
            everybody = [asyncio.create_task(guests.come_and_go(over))]
            everybody += [asyncio.create_task(self._client(http, self._one_more(), over)) for _ in range(CLIENTS)]
            await asyncio.wait(everybody, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            over.set()
            await asyncio.gather(*everybody)

    async def _client(self, http: aiohttp.ClientSession, chance: random.Random, over: asyncio.Event) -> None:
        while not over.is_set():
            (way,) = chance.choices([*WAYS], [*WAYS.values()])
            visit, name = Visit(http, chance), way.__name__
            try:
                async with asyncio.timeout(PATIENCE):
                    await way(visit)
                self.report.whole[name] += 1
            except Left:
                self.report.left[name] += 1
            except Exception as error:
                told = error if isinstance(error, Broken) else repr(error)
                self.report.broken.append(f"{name}, {visit.text}, stream {visit.stream_id or 'none'}: {told}")
            self.report.durable |= visit.durable

    def _one_more(self) -> random.Random:
        return random.Random(self._chance.random())

    def _http(self, key: str) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            self._url, headers={"authorization": f"Bearer {key}"}, connector=aiohttp.TCPConnector(limit=0)
        )
