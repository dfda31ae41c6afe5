"""What a replica produces: each stream is begun once, whoever asks for it how often."""

import asyncio
from typing import Any

import pytest

from proxy.errors import Kind, ProviderError, RequestError, Stopped, WeirError
from proxy.state.stream_log import Once
from proxy.testing import says, scripted, text_of
from tests.durable.replicas import Fleet, all_of
from tests.journeys import HANG
from tests.process import until

pytestmark = pytest.mark.anyio

ONCE = Once("key", "digest")


async def test_a_key_names_one_stream_on_every_replica(fleet: Fleet) -> None:
    adapters = [scripted("a", says("a"), models=["m"]) for _ in range(2)]
    one, other = [await fleet(adapter) for adapter in adapters]
    first = await one.ask(once=ONCE)
    again = await other.ask(once=ONCE)
    assert again.id == first.id
    assert text_of(await all_of(again)) == "a"
    assert sum(len(adapter.calls) for adapter in adapters) == 1


async def test_of_requests_at_the_same_moment_one_is_asked(fleet: Fleet) -> None:
    adapters = [scripted("a", says("a"), models=["m"]) for _ in range(2)]
    replicas = [await fleet(adapter) for adapter in adapters]
    readers = await asyncio.gather(*(replica.ask(once=ONCE) for replica in replicas * 5))
    assert len({reader.id for reader in readers}) == 1, "a key named two streams"
    assert {text_of(events) for events in await asyncio.gather(*map(all_of, readers))} == {"a"}
    assert sum(len(adapter.calls) for adapter in adapters) == 1


async def test_a_key_is_for_one_request(fleet: Fleet) -> None:
    one = await fleet(scripted("a", says("a"), models=["m"]))
    await one.ask(once=ONCE)
    with pytest.raises(RequestError) as caught:
        await one.ask(once=Once("key", "another"))
    assert (caught.value.status, caught.value.code) == (422, "idempotency_key_reused")


async def test_nothing_is_kept_of_a_request_that_nobody_could_answer(fleet: Fleet) -> None:
    one = await fleet(scripted("a", [ProviderError(Kind.AUTH, "no")], says("a"), models=["m"]))
    first = await one.ask(once=ONCE)
    with pytest.raises(WeirError, match="no"):
        await all_of(first)
    await until(lambda: not one.streams._produced._tasks, "its end to be noted")
    again = await one.ask(once=ONCE)
    assert again.id != first.id
    assert text_of(await all_of(again)) == "a"


async def test_what_another_version_began_keeps_nobody_from_what_else_was_left(fleet: Fleet) -> None:
    one = await fleet(scripted("a", [HANG], models=["m"]))
    first = await one.ask()
    await until(lambda: one.house.pipeline.live, "a stream that opens")
    await one.die()
    client, logs = one.store.client, one.streams.logs
    opening = {"opening": '{"nonce":"n","replica":"replica0"}', "about": '{"owner":["o"]}'}
    await client.xadd(logs.log("newer"), opening, id="1-0")
    await client.sadd(logs.streams("replica0"), "newer")
    await client.sadd(one.store.key("producers"), "replica0")
    other = await fleet()
    with pytest.raises(WeirError, match="died"):
        async with asyncio.timeout(5):
            await all_of(await other.read(first.id))
    assert await client.xlen(logs.log("newer")) == 1, "it was taken over, and cannot be understood"
    assert await client.smembers(logs.streams("replica0")) == {"newer"}


async def test_nothing_is_kept_of_one_that_was_cancelled_before_it_said_anything(fleet: Fleet) -> None:
    """As where nobody read it for too long, and whoever asked comes back with the same key."""
    one = await fleet(scripted("a", [HANG], says("a"), models=["m"]))
    first = await one.ask(once=ONCE)
    await until(lambda: one.house.pipeline.live, "a stream that opens")
    one.house.pipeline.live[first.id].stop("nobody has read it")
    with pytest.raises(Stopped, match="nobody has read it"):
        await all_of(first)
    await until(lambda: not one.streams._produced._tasks, "its end to be noted")
    again = await one.ask(once=ONCE)
    assert text_of(await all_of(again)) == "a"


async def test_what_is_coming_to_its_end_was_left_by_nobody(fleet: Fleet) -> None:
    one = await fleet(scripted("a", says("a"), models=["m"]))
    ended, noted = one.streams.logs.ended, asyncio.Event()

    async def slowly(*told: Any, **more: Any) -> None:
        await noted.wait()
        await ended(*told, **more)

    one.streams.logs.ended = slowly  # type: ignore[method-assign]
    first = await one.ask()
    assert text_of(await all_of(first)) == "a"
    await until(lambda: not [*one.streams._produced], "nothing is written to it any more")
    assert first.id in one.streams._produced, "it is looked at as if somebody had left it"
    noted.set()
    await until(lambda: first.id not in one.streams._produced, "its end is noted")
