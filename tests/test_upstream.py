"""One provider in this process: made ready once, closed once, and in peace."""

import asyncio
import logging

import pytest

import proxy.upstream
from proxy.errors import ConfigError, Kind, ProviderError
from proxy.session.window import UNKNOWN, Size
from proxy.testing import ScriptedAdapter, scripted
from proxy.upstream import LONGEST_REST, Upstream
from tests.journeys import Clock, idle, odd
from tests.journeys import Odd as Adapter

pytestmark = pytest.mark.anyio


class Slow(Adapter):
    """Counts how often it is made ready and closed; `fails` are raised by `create_model`, one a call."""

    def __init__(self, *args: object):
        super().__init__(*args)  # type: ignore[arg-type]
        self.made = self.closes = 0
        self.fails: list[Exception] = []
        self.ready = asyncio.Event()
        self.ready.set()

    async def create_model(self) -> None:
        self.made += 1
        await self.ready.wait()
        if self.fails:
            raise self.fails.pop(0)

    async def close(self) -> None:
        self.closes += 1
        await self.ready.wait()
        if self.fails:
            raise self.fails.pop(0)


def slow() -> tuple[Upstream, Slow]:
    adapter = odd(Slow, api_key="sk-very-secret-1")
    assert isinstance(adapter, Slow)
    return Upstream(adapter.config, adapter, clock=Clock()), adapter


async def test_it_is_made_ready_once_however_many_wait() -> None:
    upstream, adapter = slow()
    adapter.ready.clear()
    waiting = [asyncio.create_task(upstream.ready_to_stream()) for _ in range(3)]
    await idle()
    waiting[0].cancel()
    await idle()
    adapter.ready.set()
    await asyncio.gather(*waiting[1:])
    await upstream.prepare()
    assert adapter.made == 1, "one who does not wait any longer must not start it anew for the others"
    assert waiting[0].cancelled()


async def test_a_provider_that_cannot_work_says_what_to_do_and_may_be_repaired() -> None:
    upstream, adapter = slow()
    adapter.fails = [ConfigError(["install the engine"]), ConfigError(["install the engine"])]
    with pytest.raises(ConfigError):
        await upstream.prepare()
    with pytest.raises(ProviderError, match="install the engine") as caught:
        await upstream.ready_to_stream()
    assert caught.value.kind is Kind.CONFIG
    await upstream.ready_to_stream()
    assert adapter.made == 3, "a failure is not for ever"


async def test_any_failure_of_create_model_is_tried_again() -> None:
    upstream, adapter = slow()
    adapter.fails = [RuntimeError("no such library")]
    with pytest.raises(RuntimeError):
        await upstream.ready_to_stream()
    await upstream.ready_to_stream()
    assert adapter.made == 2


async def test_an_idle_one_is_closed_at_once() -> None:
    upstream, adapter = slow()
    await upstream.prepare()
    await upstream.retire()
    assert adapter.closes == 1


async def test_streams_end_in_peace_before_it_is_closed_once() -> None:
    upstream, adapter = slow()
    for _ in range(2):
        upstream.began()
    await upstream.retire()
    upstream.ended()
    await idle()
    assert adapter.closes == 0, "closed under a running stream"
    assert upstream.meter.active == 1
    upstream.ended()
    await idle()
    assert adapter.closes == 1
    assert upstream.meter.active == 0


async def test_a_request_between_two_attempts_keeps_it_open() -> None:
    upstream, adapter = slow()
    upstream.hold()
    upstream.began()
    upstream.ended()
    await upstream.retire()
    await idle()
    assert adapter.closes == 0, "closed while a request was going to ask again"
    upstream.let_go()
    await idle()
    assert adapter.closes == 1


async def test_a_close_that_fails_or_hangs_is_logged_and_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy.upstream, "LONGEST_CLOSE", 0.02)
    upstream, adapter = slow()
    adapter.fails = [RuntimeError("bad key sk-very-secret-1")]
    await upstream.retire()
    assert "bad key [redacted]" in caplog.text
    assert "very-secret" not in caplog.text, "a key went to the log"
    hanging, adapter = slow()
    adapter.ready.clear()
    async with asyncio.timeout(1):
        await hanging.retire()
    assert caplog.records[-1].levelno == logging.ERROR


async def test_closing_ends_what_was_being_made_ready() -> None:
    upstream, adapter = slow()
    adapter.ready.clear()
    waiting = asyncio.create_task(upstream.prepare())
    await idle()
    adapter.ready.wait = lambda: asyncio.sleep(0, True)  # type: ignore[method-assign]
    await upstream.retire()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert adapter.closes == 1


def resting(adapter: ScriptedAdapter, *seconds: float) -> tuple[Upstream, Clock]:
    clock = Clock()
    upstream = Upstream(adapter.config, adapter, clock=clock)
    for each in seconds:
        upstream.rest(each)
    return upstream, clock


def test_it_rests_as_long_as_it_asked() -> None:
    upstream, clock = resting(scripted(), 30, 10)
    assert upstream.due() == clock.now + 30, "the longer rest holds"
    assert not upstream.usable()
    clock.now += 30
    assert upstream.usable()


def test_it_does_not_rest_for_ever() -> None:
    upstream, clock = resting(scripted(), 1e9)
    assert upstream.due() == clock.now + LONGEST_REST


def test_it_is_due_when_both_its_rest_and_its_circuit_say_so() -> None:
    upstream, clock = resting(scripted(), 5)
    for _ in range(5):
        upstream.circuit.failed(upstream.circuit.generation, clock())
    assert upstream.due() == upstream.circuit.verdict.until
    clock.now += 6
    assert not upstream.usable()
    clock.now = upstream.due()
    assert upstream.usable()


def upstream_of(adapter: type[Adapter] = Adapter, **config: object) -> Upstream:
    made = odd(adapter, **config)  # type: ignore[arg-type]
    return Upstream(made.config, made)


class Knowing(Adapter):
    def context_window(self, model: str) -> int | None:
        return {"own": 2048}.get(model)


async def test_its_window_is_what_the_operator_says_then_the_adapter_then_the_map() -> None:
    known = upstream_of(Knowing, provider_type="openai")
    assert await known.context_window("own") == 2048
    assert await known.context_window("gpt-4o") == 128_000
    assert await known.context_window("nobody-knows-it") is None
    assert await upstream_of(Knowing, context_window=4096).context_window("own") == 4096
    assert await upstream_of().context_window("m") is None


async def test_its_room_is_what_its_window_and_its_tokens_leave() -> None:
    known = upstream_of(context_window=8000)
    fields = {"max_tokens": 1200}
    assert await known.room("m", fields) == (7200 - 1200) * 4
    for _ in range(50):
        known.estimate.learn(Size(10_000), 5_000)
    assert await known.room("m", fields) == pytest.approx((7200 - 1200) * 2, rel=0.01)
    assert await upstream_of().room("m", {}, [{"type": "function"}]) == UNKNOWN - len('[{"type":"function"}]')


@pytest.mark.parametrize(
    ("config", "features", "goes_on"),
    [
        ({}, set(), False),
        ({"prefill": True}, set(), True),
        ({}, {"prefill"}, True),
        ({"prefill": False}, {"prefill"}, False),
    ],
)
async def test_whether_its_models_take_up_what_was_said(
    config: dict[str, bool], features: set[str], goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = scripted("a", **config)
    monkeypatch.setattr(type(adapter), "features", frozenset(features))
    assert await Upstream(adapter.config, adapter).goes_on("m") is goes_on


async def test_the_map_knows_models_that_do() -> None:
    mistral = scripted("a", provider_type="mistral")
    assert await Upstream(mistral.config, mistral).goes_on("ministral-3b-latest")
    assert not await Upstream(mistral.config, mistral).goes_on("gpt-4o")
