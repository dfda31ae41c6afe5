"""How a replica with durable streams says goodbye: they get its grace, and what is left is another's at once."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from proxy.state.stream_log import LEASE
from tests.paced_upstream import PacedUpstream
from tests.process import until
from tests.redis_server import RedisServer
from tests.scenarios.returning import ReturningClient, have
from tests.scenarios.survivors import Survivors, survivors
from tests.scenarios.verdict import judge

pytestmark = pytest.mark.anyio

GRACE = 0.4
ENDLESS = 100_000


@asynccontextmanager
async def two(
    path: Path, redis: RedisServer | None, grace: float = GRACE, count: int = 2
) -> AsyncIterator[tuple[PacedUpstream, Survivors, aiohttp.ClientSession]]:
    """Replicas that give running streams so many seconds, once they are told to leave."""
    environment = {"WEIR_GRACE": str(grace)} | ({"REDIS_URL": redis.url} if redis else {})
    async with (
        PacedUpstream() as upstream,
        survivors(path, upstream.url, count, **environment) as replicas,
        aiohttp.ClientSession() as session,
    ):
        yield upstream, replicas, session


async def test_what_is_left_at_the_end_of_the_grace_is_taken_over_at_once(tmp_path: Path, redis: RedisServer) -> None:
    async with two(tmp_path, redis) as (upstream, replicas, session):
        leaving, chance = replicas[0], random.Random(0)
        watched, here, alone = (
            ReturningClient(session, replicas, chance, name, recovery="restart", length=ENDLESS, later=5)
            for name in ("watched", "here", "alone")
        )
        for client in (watched, here, alone):
            await client.connect(at=leaving, until=have(3, client))
        reading = [asyncio.create_task(watched.read(at=replicas[1])), asyncio.create_task(here.read(at=leaving))]
        await until(have(6, watched, here), "they are not read on")
        leaving.leave(signal.SIGTERM)
        left = time.monotonic()
        first = [upstream.answers[client.name][0] for client in (watched, here, alone)]
        await until(lambda: all(said.cut for said in first), "it does not let go of the provider")
        await until(lambda: all(len(said) == 2 for said in upstream.answers.values()), "nobody takes them over")
        assert time.monotonic() - left - GRACE < LEASE - 1, "they were left to the lease"
        assert await leaving.served.ended() == 0, leaving.served.log
        async with asyncio.timeout(20):
            await asyncio.gather(*reading, alone.read())
        for client in (watched, here, alone):
            judge(client, upstream.answers[client.name])
            assert client.ended == "finish", f"{client.name} was not taken over as it wanted"
        assert here.told, "whoever read it there was not told that the replica goes"
        assert not watched.told, "whoever read it elsewhere was disturbed"
        assert "Traceback" not in leaving.served.log, leaving.served.log


async def test_a_durable_stream_is_let_finish_with_a_reader_and_without(tmp_path: Path, redis: RedisServer) -> None:
    async with two(tmp_path, redis, grace=20) as (upstream, replicas, session):
        leaving, chance = replicas[0], random.Random(0)
        read, alone = (ReturningClient(session, replicas, chance, name, length=20) for name in ("read", "alone"))
        await alone.connect(at=leaving, until=have(3, alone))
        reading = asyncio.create_task(read.read(at=leaving))
        await until(have(3, read), "it is not read")
        leaving.leave(signal.SIGTERM)
        await reading
        assert await leaving.served.ended() == 0, leaving.served.log
        assert read.connections == 1, "it was sent away before the grace was over"
        await alone.read()
        for client in (read, alone):
            judge(client, upstream.answers[client.name])
            assert [block.position.epoch for block in client.blocks] == [1] * 23, f"{client.name} was not let finish"


async def test_readers_of_others_streams_are_told_to_go_elsewhere(tmp_path: Path, redis: RedisServer) -> None:
    async with two(tmp_path, redis) as (upstream, replicas, session):
        stays, leaving = replicas
        clients = [ReturningClient(session, replicas, random.Random(0), f"moved-{each}") for each in range(2)]
        for client in clients:
            await client.connect(at=stays, until=have(3, client))
        reading = [asyncio.create_task(client.read(at=leaving)) for client in clients]
        await until(have(6, *clients), "they are not read there")
        leaving.leave(signal.SIGTERM)
        async with asyncio.timeout(20):
            await asyncio.gather(*reading)
        assert await leaving.served.ended() == 0, leaving.served.log
        for client in clients:
            assert len(client.told) == 1, f"it was to be told once, without an id: {client.told}"
            assert "read it from another replica" in client.told[0]
            judge(client, upstream.answers[client.name])
            assert client.blocks[-1].position.epoch == 1, "the stream itself has nothing to do with it"


async def test_without_redis_a_stream_ends_marked_with_its_replica(tmp_path: Path) -> None:
    async with two(tmp_path, None, count=1) as (upstream, (leaving,), session):
        client = ReturningClient(session, Survivors([leaving]), random.Random(0), "last", length=ENDLESS)
        reading = asyncio.create_task(client.read())
        await until(have(3, client), "it does not begin")
        leaving.leave(signal.SIGTERM)
        await reading
        assert client.ended == "stopped", f"it did not end marked: {client.ended}, {client.told}"
        assert "shutting down" in client.blocks[-1].data.decode()
        assert await leaving.served.ended() == 0, leaving.served.log
        assert upstream.answers["last"][0].cut, "the provider's call goes on"
        assert "Traceback" not in leaving.served.log, leaving.served.log
