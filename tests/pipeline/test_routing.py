"""Who is asked for a model, and in which order."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from pydantic import SecretStr

from proxy.errors import ConfigError, RequestError
from proxy.pipeline.routing import Router
from proxy.provider import ProviderConfig
from proxy.registry import Registry
from proxy.testing import ScriptedAdapter, scripted
from tests.journeys import NO_SESSION, House, Odd, idle

pytestmark = pytest.mark.anyio


def order(house: House, model: str, **options: Any) -> list[tuple[str, str]]:
    return [(upstream.id, name) for upstream, name in house.router.routes(model, **options)]


def house(**priorities: int) -> House:
    """Providers by these names, all of which serve `m`."""
    return House(*(scripted(name, [], models=["m"], priority=at) for name, at in priorities.items()))


def test_a_model_has_four_kinds_of_names() -> None:
    it = House(
        scripted("one", [], model_name="gpt", models=["fast", "gpt"], priority=1),
        scripted("two", [], model_name="org/model", models=["fast"], priority=2),
    )
    assert order(it, "one") == [("one", "gpt")], "a provider's id"
    assert order(it, "gpt") == [("one", "gpt")], "its upstream's name, however often it is given"
    assert order(it, "org/model") == [("two", "org/model")], "also one with a slash"
    assert order(it, "fast") == [("one", "gpt"), ("two", "org/model")], "an alias is a group"
    assert order(it, "one/any/thing:7b") == [("one", "any/thing:7b")], "any model of one provider"
    assert set(it.router.models()) == {"one", "gpt", "fast", "two", "org/model"}


def test_an_id_means_that_provider_alone() -> None:
    """Or whoever registers a provider could take over what is asked of another."""
    it = House(scripted("one", [], priority=9), scripted("thief", [], models=["one", "fast"], priority=0))
    assert order(it, "one") == [("one", "scripted")]
    assert order(it, "fast") == [("thief", "scripted")]


@pytest.mark.parametrize("model", ["nope", "one/", "/gpt", "nope/gpt", "One", "fast/x"])
def test_an_unknown_model_is_told_what_exists(model: str) -> None:
    it = House(scripted("one", [], model_name="gpt", models=["fast"]))
    with pytest.raises(RequestError) as caught:
        it.router.routes(model)
    error = caught.value
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert error.message == f"model {model!r} is not served here; available: fast, gpt, one"


def test_a_long_name_is_not_repeated_in_full() -> None:
    with pytest.raises(RequestError) as caught:
        House().router.routes("x" * 10_000_000)
    assert len(caught.value.message) < 500
    assert "no provider is registered" in caught.value.message


def test_lower_priority_numbers_first() -> None:
    assert [name for name, _ in order(house(c=3, a=1, b=2), "m")] == ["a", "b", "c"]


def test_without_fallback_only_the_first() -> None:
    assert [name for name, _ in order(house(b=2, a=1), "m", fallback=False)] == ["a"]


def test_equals_share_by_least_active() -> None:
    it = house(a=1, b=1, c=1)
    given: Counter[str] = Counter()
    for _ in range(30):
        first = it.router.routes("m")[0][0]
        first.began()
        given[first.id] += 1
    assert given == {"a": 10, "b": 10, "c": 10}, f"the load was not shared: {given}"


def test_equals_that_are_idle_take_turns() -> None:
    it = house(a=1, b=1)
    assert {order(it, "m")[0][0] for _ in range(100)} == {"a", "b"}, "one of two idle equals gets everything"


def test_the_busy_one_still_goes_before_the_less_preferred() -> None:
    it = house(a=1, b=2)
    it["a"].began()
    assert order(it, "m")[0][0] == "a"


def test_who_is_left_out_or_rests_is_passed_over() -> None:
    it = house(a=1, b=2, c=3)
    it.open_circuit("a")
    it["b"].rest(10)
    assert order(it, "m") == [("c", "scripted")]
    it.clock.now += 11
    assert [name for name, _ in order(it, "m")] == ["b", "c"]
    it.clock.now += 30
    assert [name for name, _ in order(it, "m")] == ["a", "b", "c"], "due for a probe: it is asked in its place"
    it["a"].circuit.probe = "a request"
    assert [name for name, _ in order(it, "m")] == ["b", "c"], "the probe is under way: others go past it"


def test_when_nobody_is_free_the_soonest_due_is_tried() -> None:
    it = house(a=1, b=2, c=3)
    it.open_circuit("a")
    it["b"].rest(5)
    it["c"].rest(10)
    assert order(it, "m") == [("b", "scripted")]


class Closes(ScriptedAdapter):
    closes = 0

    async def close(self) -> None:
        self.closes += 1


def registry() -> Registry:
    kinds = Registry()
    kinds.add_adapter("scripted", Closes)
    return kinds


def config(provider_id: str = "a", **fields: Any) -> ProviderConfig:
    return ProviderConfig(provider_id=provider_id, provider_type="scripted", model_name="m", **fields)


def closes(upstream: Any) -> int:
    return int(upstream.adapter.closes)


def test_where_nobody_is_named_the_preferred_one_that_is_in_service_answers() -> None:
    it = house(c=3, a=1, b=2)
    assert it.router.default() == "a"
    it["a"].rest(60)
    assert it.router.default() == "b", "the preferred one rests"
    it["b"].rest(30)
    it["c"].rest(90)
    assert it.router.default() == "b", "where nobody is, the one that is due first"
    with pytest.raises(RequestError, match="no provider is registered"):
        House().router.default()


async def test_put_replaces_in_peace_and_keeps_the_circuit() -> None:
    router = Router(registry(), NO_SESSION)
    old = router.build(config(models=["old"]), managed=True)
    await router.put(old)
    old.circuit.failed(0, 0.0)
    old.began()
    new = router.build(config(models=["new"]), managed=True)
    await router.put(new)
    assert router.get("a") is new
    assert new.circuit is old.circuit, "a provider that was left out is not back by being replaced"
    assert set(router.models()) == {"a", "m", "new"}
    assert closes(old) == 0, "closed under a running stream"
    old.ended()
    await idle()
    assert (closes(old), closes(new)) == (1, 0)


async def test_remove_and_close() -> None:
    router = Router(registry(), NO_SESSION)
    a, b = (router.build(config(name), managed=False) for name in "ab")
    await router.put(a)
    await router.put(b)
    await router.remove("a")
    await router.remove("a")
    await router.remove("never there")
    assert closes(a) == 1
    assert order_of(router) == ["b"]
    with pytest.raises(RequestError):
        router.routes("a")
    await router.close()
    assert (closes(a), closes(b)) == (1, 1)
    assert list(router) == []


def order_of(router: Router) -> list[str]:
    return [upstream.id for upstream, _ in router.routes("m")]


async def test_it_is_out_of_service_before_anyone_waits_for_its_close() -> None:
    router = Router(registry(), NO_SESSION)
    await router.put(router.build(config(), managed=False))
    task = asyncio.create_task(router.remove("a"))
    await asyncio.sleep(0)
    assert router.get("a") is None
    await task


class Broken(Odd):
    def __init__(self, *args: object):
        raise ValueError("what is sk-very-secret-1?")


def test_an_adapter_that_cannot_be_made_is_a_mistake_in_the_configuration() -> None:
    kinds = registry()
    kinds.add_adapter("broken", Broken)
    broken = ProviderConfig(provider_id="a", provider_type="broken", model_name="m", api_key=SecretStr("very-secret"))
    with pytest.raises(ConfigError) as caught:
        Router(kinds, NO_SESSION).build(broken, managed=False)
    assert caught.value.problems[0].startswith("provider a: its adapter cannot be made: ValueError(")
    assert "very-secret" not in caught.value.message
