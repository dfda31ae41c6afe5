"""What a pipeline says goes into the log, whoever reads it, and the log has its end whatever happens."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from proxy.errors import INTERNAL, Kind, ProviderError, StoreAway
from proxy.events import Abort, Error, Event, Finish, Start, TextDelta
from proxy.pipeline.stream import Stream
from proxy.state.stream_log import Once
from proxy.testing import says, scripted, text_of
from tests.durable.replicas import Fleet, all_of, log_holds, logged, told
from tests.journeys import HANG
from tests.process import until

pytestmark = pytest.mark.anyio

A = TextDelta(content="a")


async def test_it_goes_on_without_a_reader(fleet: Fleet) -> None:
    gate = asyncio.Event()
    one = await fleet(scripted("a", [Start(), A, gate, A, Finish()], models=["m"]))
    first = await one.ask()
    await log_holds(one, first.id, 2)
    gate.set()
    await log_holds(one, first.id, 4)
    assert text_of(await logged(one, first.id)) == "aa"
    await until(lambda: not one.house.pipeline.live, "the end of what produced it")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ProviderError(Kind.AUTH, "no"), 502, "all_providers_failed"),
        (ProviderError(Kind.RATE_LIMIT, "slow down", retry_after=99), 429, "rate_limited"),
    ],
)
async def test_total_failure_keeps_its_status(fleet: Fleet, error: ProviderError, status: int, code: str) -> None:
    one = await fleet(scripted("a", [error], models=["m"], retry={"max_attempts": 1}))
    first = await one.ask()
    await log_holds(one, first.id, 1)
    (end,) = await logged(one, first.id)
    assert isinstance(end, Error)
    assert (end.status, end.code) == (status, code)


async def test_told_to_stop_before_it_began_it_ends_marked(fleet: Fleet) -> None:
    one = await fleet(scripted("a", [HANG], models=["m"]))
    first = await one.ask()
    await until(lambda: one.house.pipeline.live, "a stream that opens")
    one.house.pipeline.live[first.id].stop("enough")
    await log_holds(one, first.id, 1)
    (end,) = await logged(one, first.id)
    assert isinstance(end, Abort)
    assert end.reason == "enough"


async def test_a_bug_of_ours_ends_it_marked_and_is_not_told(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Stream, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        async for event in events:
            event.seq = 1
            yield event
            raise KeyError("a secret of the house")

    monkeypatch.setattr(Stream, "paced", broken)
    one = await fleet(scripted("a", says("a"), models=["m"]))
    events = await all_of(await one.ask())
    assert told(events) == ["start", "error"]
    assert isinstance(events[-1], Error)
    assert events[-1].message == INTERNAL


async def test_what_fails_after_an_answer_has_begun_is_no_total_failure(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its idempotency key would be forgotten, and the same request cost a second call."""

    async def broken(self: Stream, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        async for event in events:
            event.seq = 1
            yield event
            raise StoreAway("a session")

    monkeypatch.setattr(Stream, "paced", broken)
    one = await fleet(scripted("a", says("a"), models=["m"]))
    first = await one.ask(once=Once("key", "digest"))
    assert told(await all_of(first)) == ["start", "data-recovery", "error"]
    await until(lambda: not [*one.streams._produced], "the end to be noted")
    assert (await one.ask(once=Once("key", "digest"))).id == first.id, "what was answered was forgotten"


async def test_a_stream_at_its_cap_ends_marked_and_its_provider_is_let_go(fleet: Fleet) -> None:
    long = TextDelta(content="x" * 30_000)
    adapter = scripted("a", [Start(), *[long] * 20, HANG], models=["m"])
    one = await fleet(adapter, stream_cap=64 * 1024)
    events = await all_of(await one.ask())
    assert isinstance(events[-1], Error)
    assert events[-1].code == "stream_too_long"
    assert 64 * 1024 <= len(text_of(events)) <= 64 * 1024 + 130_000, "the cap is far from where it ended"
    await until(lambda: one.house["a"].meter.active == 0, "the provider's call to end")


async def test_a_provider_is_held_back_while_redis_is_slow(fleet: Fleet) -> None:
    """What waits to be written is bounded."""
    sent = 0
    long = TextDelta(content="x" * 10_000)

    class Counting(list[Event]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            nonlocal sent
            for event in [Start(), *[long] * 60, Finish()]:
                sent += 1
                yield event

    one = await fleet(scripted("a", Counting(), models=["m"]))
    slow, append = asyncio.Event(), one.streams.logs.append

    async def slowly(batch):  # type: ignore[no-untyped-def]
        await slow.wait()
        return await append(batch)

    one.streams.logs.append = slowly  # type: ignore[method-assign]
    first = await one.ask()
    await until(lambda: sent > 7, "a provider that speaks")
    for _ in range(100):
        await asyncio.sleep(0)
    assert sent <= 15, f"{sent} pieces of 10 kB wait for Redis"
    slow.set()
    assert len(text_of(await all_of(first))) == 600_000
