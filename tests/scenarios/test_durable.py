"""Durable streams while replicas and Redis die: nothing lost, nothing twice, every stream ended.

`make chaos ROUNDS=100` plays as many rounds as one likes; SEED= repeats the choices of one that failed.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.paced_upstream import PACE, PacedUpstream
from tests.process import until
from tests.redis_server import RedisServer
from tests.scenarios.returning import Block, ReturningClient, have
from tests.scenarios.survivors import Survivors, survivors
from tests.scenarios.verdict import judge

pytestmark = pytest.mark.anyio

ROUNDS = int(os.environ.get("WEIR_CHAOS_ROUNDS") or 5)
SEED = int(os.environ.get("WEIR_CHAOS_SEED") or random.randrange(1_000_000))
STREAMS = 50
AT_ONCE = 3  # rounds: one begins while orphans of the last are waited for


class Round:
    """50 streams, of which those of one replica lose their producer."""

    def __init__(self, number: int, session: aiohttp.ClientSession, replicas: Survivors, upstream: PacedUpstream):
        self.number = number
        self.chance = random.Random(f"{SEED}-{number}")
        self._upstream = upstream
        self._replicas = replicas
        policies = ("fail", "restart", "continue")
        self.clients = [
            ReturningClient(
                session,
                replicas,
                self.chance,
                f"{SEED}-{number}-{each}",
                recovery=policies[each % 3],
                native=bool(self.chance.getrandbits(1)),
            )
            for each in range(STREAMS)
        ]

    async def play(self) -> None:
        """Reads all of them to the end, and finds nothing wrong."""
        async with asyncio.timeout(60):
            await asyncio.gather(*(client.read(hop=bool(self.chance.getrandbits(1))) for client in self.clients))
        for client in self.clients:
            judge(client, self._upstream.answers[client.name])
        adopted = [client for client in self.clients if client.blocks[-1].position.epoch > 1]
        assert adopted, "no stream was taken over: this round has shown nothing"
        assert any(client.connections > 1 for client in self.clients), "nobody came back"
        told = sum(len(client.told) for client in self.clients)
        print(f"round {self.number}: {len(adopted)} of {STREAMS} taken over, {told} times told to come again")
        late = [client.again() for client in self.clients]
        await asyncio.gather(*(client.read() for client in late))
        for client, whole in zip(self.clients, late, strict=True):
            assert client.blocks == whole.blocks, f"stream {client.name} reads otherwise afterwards"

    async def strike(self, redis: RedisServer) -> None:
        """`kill -9` at a random moment, which is told by what was said until then; it is started again at once.

        In every third round Redis dies, too, a little later.
        """
        moment = self.chance.randrange(STREAMS, STREAMS * 25)
        await until(lambda: self.said >= moment, "the streams do not begin")
        victim = self._replicas.any(self.chance)
        await victim.kill()
        if self.number % 3 == 2:
            redis.kill()
            redis.start()
        await victim.start()

    @property
    def said(self) -> int:
        answers = (self._upstream.answers[client.name] for client in self.clients)
        return sum(len(said.tokens) for of_one in answers for said in of_one)


@asynccontextmanager
async def fleet(
    path: Path, redis: RedisServer, pace: float = PACE
) -> AsyncIterator[tuple[PacedUpstream, Survivors, aiohttp.ClientSession]]:
    """Three replicas, the upstream they ask, and a session for those who read."""
    async with (
        PacedUpstream(pace) as upstream,
        survivors(path, upstream.url, REDIS_URL=redis.url) as replicas,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield upstream, replicas, session


async def test_replicas_that_are_killed_lose_nothing_and_double_nothing(tmp_path: Path, redis: RedisServer) -> None:
    print(f"repeat with SEED={SEED}")  # shown where it fails
    async with fleet(tmp_path, redis) as (upstream, replicas, session), asyncio.TaskGroup() as rounds:
        running: set[asyncio.Task[None]] = set()
        for number in range(ROUNDS):
            this = Round(number, session, replicas, upstream)
            running.add(rounds.create_task(this.play()))
            await this.strike(redis)
            while len(running) >= AT_ONCE:
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)


async def test_an_owner_that_only_slept_stops_what_is_another_s_now(tmp_path: Path, redis: RedisServer) -> None:
    async with fleet(tmp_path, redis) as (upstream, replicas, session):
        chance, owner = random.Random(SEED), replicas[0]
        clients = [
            ReturningClient(session, replicas, chance, f"asleep-{each}", recovery="restart", length=length, later=5)
            for each, length in enumerate([2000, -8] * 4)  # of a silent provider, nothing comes that can be refused
        ]
        for client in clients:
            await client.connect(at=owner, until=have(4, client))
        stay = [asyncio.create_task(client.read(at=owner)) for client in clients[:4]]
        await until(have(7, *clients[:4]), "nobody is fed by the owner")
        owner.pause()
        async with asyncio.timeout(30):
            await asyncio.gather(*(client.read() for client in clients[4:]))
            owner.resume()
            await asyncio.gather(*stay)
        for client in clients:
            judge(client, upstream.answers[client.name])
            assert client.ended == "finish", f"{client.name} was not taken over as it wanted"
        first = [upstream.answers[client.name][0] for client in clients]
        await until(lambda: all(said.cut for said in first), "the sleeper goes on with calls that are of no use")
        assert all(len(upstream.answers[client.name]) == 2 for client in clients), "somebody was asked once more"
        assert "Traceback" not in owner.served.log, owner.served.log


async def test_redis_that_dies_and_comes_back_loses_nothing(tmp_path: Path, redis: RedisServer) -> None:
    async with fleet(tmp_path, redis) as (upstream, replicas, session):
        chance = random.Random(SEED)
        clients = [ReturningClient(session, replicas, chance, f"away-{each}") for each in range(STREAMS)]
        reading = [asyncio.create_task(client.read(hop=bool(chance.getrandbits(1)))) for client in clients]
        for half in (5, 20):
            await until(have(half, *clients), "the streams do not go on")
            redis.kill()
            redis.start()
        async with asyncio.timeout(30):
            await asyncio.gather(*reading)
        for client in clients:
            judge(client, upstream.answers[client.name])
            assert client.ended == "finish", f"{client.name} did not live through it: {client.ended}"


async def test_a_client_cut_at_each_of_200_events_gets_all_of_them(tmp_path: Path, redis: RedisServer) -> None:
    async with fleet(tmp_path, redis, pace=0.01) as (upstream, replicas, session):
        chance = random.Random(SEED)
        first = ReturningClient(session, replicas, chance, "cut", length=200)
        await first.connect(until=have(1, first))

        async def cut(after: int) -> list[Block]:
            client = first.again()
            while len(client.blocks) < after:  # 200 at once: some are told that Redis is slow, and come again
                await client.connect(until=have(after, client))
            await client.read()
            return client.blocks

        async with asyncio.timeout(30):
            read = await asyncio.gather(first.read(), *(cut(after) for after in range(1, 201)))
        judge(first, upstream.answers["cut"])
        assert len(first.blocks) > 200
        exact = [blocks == first.blocks for blocks in read[1:]]
        assert all(exact), f"{sum(exact)} of 200 are exact"
