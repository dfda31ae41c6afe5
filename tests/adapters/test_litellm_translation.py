"""The short way to a vendor, by LiteLLM's transformation classes, against its long one: all is the same on both."""

import gc
from typing import Any

import pytest

from proxy.adapters.litellm import LiteLLMAdapter
from proxy.adapters.litellm_translation import LONGEST, copied
from proxy.errors import ProviderError
from proxy.events import Event, Start, ToolInputDelta
from tests.adapters.test_litellm import PIXEL, WEATHER
from tests.vendors.anthropic import ANSWERS as ANTHROPIC
from tests.vendors.gemini import ANSWERS as GEMINI
from tests.vendors.world import HI, World, failing, play, text_of

pytestmark = pytest.mark.anyio

CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
ODD = {"type": "function", "function": {"name": "a/b", "parameters": {"type": "object"}, "cache_control": {}}}
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
USED = [*HI, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "c1", "content": "sunny"}]
SIGNED = {**CALL, "id": "c1__thought__c2ln"}
ANSWERED = {"role": "tool", "tool_call_id": "c1__thought__c2ln", "content": "sunny"}
PDF = {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0xLjQK"}}
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "high"}}
CACHED = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}

QUESTIONS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "plain": (HI, {}),
    "system": ([{"role": "developer", "content": "Be brief"}, *HI], {"temperature": 0.5, "max_tokens": 9}),
    "later system": ([*HI, {"role": "system", "content": "In French"}, *HI], {"stop": list("abcdef")}),
    "prefill": ([*HI, {"role": "assistant", "content": "Hel"}], {"top_p": 0.9, "top_k": 5}),
    "tools": (HI, {"tools": [WEATHER, ODD], "tool_choice": "required", "parallel_tool_calls": False}),
    "tool's result": (USED, {"tools": [WEATHER]}),
    "tool's result alone": (USED, {}),
    "Gemini's call": ([*HI, {"role": "assistant", "tool_calls": [SIGNED]}, ANSWERED], {"tools": [WEATHER]}),
    "functions": (HI, {"functions": [WEATHER["function"]]}),
    "json": (HI, {"response_format": {"type": "json_object"}}),
    "schema": (HI, {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}),
    "thinking": (HI, {"thinking": {"type": "enabled", "budgetTokens": 1024}}),
    "thinking with tools": (USED, {"tools": [WEATHER], "thinking": True}),
    "effort": (HI, {"reasoning_effort": "low", "model": "claude-opus-4-6"}),
    "user": (HI, {"user": "u1", "metadata": {"a": "b"}}),
    "search": (HI, {"web_search_options": {"search_context_size": "low"}}),
    "media": ([{"role": "user", "content": [{"type": "text", "text": "?"}, PICTURE, PDF]}], {}),
    "cached": ([{"role": "user", "content": [CACHED]}], {}),
    "two choices": (HI, {"n": 2}),
    "another model": (HI, {"model": "claude-2"}),
    "unsupported": (HI, {"seed": 1}),
    "unsupported, dropped": (HI, {"seed": 1, "logprobs": True, "weir_fallback": True}),
    "no such choice": (HI, {"tools": [WEATHER], "tool_choice": {"type": "function"}}),
    "no content": ([{"role": "user", "content": 7}], {}),
    "no message": (["Hi"], {}),
    "nothing": ([], {}),
}


async def long_way(adapter: LiteLLMAdapter) -> LiteLLMAdapter:
    await adapter.create_model()
    adapter._translation = None
    return adapter


async def outcome(adapter: LiteLLMAdapter, messages: list[Any], fields: dict[str, Any]) -> list[Any]:
    """The events and how they end, without what is drawn by lot."""
    fields = dict(fields)
    events: list[Any] = []
    try:
        async for event in adapter.stream_chat(messages, fields.pop("tools", None), **fields):
            events.append(_without_chance(event))
    except ProviderError as error:
        events.append((error.kind, error.upstream_status, error.retry_after, error.message))
    return events


def _without_chance(event: Event) -> Event:
    if isinstance(event, Start):
        event.created = 0
        event.id = "" if event.id.startswith("chatcmpl-") else event.id
    if isinstance(event, ToolInputDelta) and event.id and event.id.startswith("call_"):
        event.id = ""
    return event


async def both(world: World, name: str, messages: list[Any], fields: dict[str, Any], **config: Any) -> list[list[Any]]:
    """What comes of a question by the short way, and by the long one: what reached the vendor, and what came back."""
    found: list[list[Any]] = []
    for prepared in (world.adapter(name, **config), world.adapter(name, **config)):
        adapter = await prepared if not found else await long_way(await prepared)
        requests = world.vendors[name].requests
        requests.clear()
        events = await outcome(adapter, copied(messages), fields)
        asked = [(it.path, {**it.headers, "connection": ""}, it.body) for it in requests]
        found.append([*asked, *events])
    return found


@pytest.mark.parametrize("name", ["anthropic", "gemini"])
@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_vendor_is_asked_what_litellm_would_ask(world: World, name: str, question: str) -> None:
    messages, fields = QUESTIONS[question]
    short, long = await both(world, name, messages, fields)
    assert short == long


@pytest.mark.parametrize(
    ("name", "scenario"),
    [
        (name, scenario)
        for name, answers in (("anthropic", ANTHROPIC), ("gemini", GEMINI))
        for scenario, answer in answers.items()
        if answer.ending == "eof"
    ],
)
async def test_an_answer_is_read_as_litellm_reads_it(world: World, name: str, scenario: str) -> None:
    short, long = await both(world, name, HI, {"n": 1}, scenario=scenario)
    assert short == long


@pytest.mark.parametrize("name", ["anthropic", "gemini"])
@pytest.mark.parametrize(
    "config",
    [
        {"headers": {"x-team": "blue", "User-Agent": "me", "anthropic-beta": "one-2025-01-01"}},
        {"params": {"temperature": 0.3, "max_tokens": 9}},
        {"params": {"additional_drop_params": ["temperature"], "temperature": 0.3}},
        {"drop_params": "always"},
        {"api_key": None},
    ],
)
async def test_what_the_operator_says_is_heeded(world: World, name: str, config: dict[str, Any]) -> None:
    short, long = await both(world, name, HI, {"max_tokens": 5}, **config)
    assert short == long


@pytest.mark.parametrize(
    ("name", "variable", "path"),
    [
        ("anthropic", "ANTHROPIC_BASE_URL", ""),
        ("anthropic", "ANTHROPIC_API_BASE", "/v1/messages"),
        ("gemini", "GEMINI_API_BASE", "/v1beta"),
    ],
)
@pytest.mark.parametrize("bare", ["", "True"])
async def test_what_the_environment_says_is_heeded(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, variable: str, path: str, bare: str
) -> None:
    monkeypatch.setenv(variable, (await world.vendor(name)).url("text") + path)
    monkeypatch.setenv("LITELLM_ANTHROPIC_DISABLE_URL_SUFFIX", bare)
    short, long = await both(world, name, HI, {}, base_url=None)
    assert short == long


async def test_only_what_is_translated_alone_comes_the_short_way(world: World) -> None:
    for name, config, short in (
        ("anthropic", {}, True),
        ("gemini", {}, True),
        ("bedrock", {}, False),
        ("azure", {}, False),
        ("anthropic", {"params": {"ensure_alternating_roles": True}}, False),
        ("anthropic", {"params": {"top_k": 5}}, True),
    ):
        adapter = await world.adapter(name, **config)
        await adapter.create_model()
        assert (adapter._translation is not None) is short, f"{name} {config}"


# The same question again


async def test_parameters_asked_for_again_are_the_same_and_nobodys(world: World) -> None:
    adapter = await world.adapter("anthropic")
    for content in ("Hi", "Hello"):
        for fields in ({"temperature": 0.5}, {"temperature": 0.5, "user": "u1"}):
            await play(adapter.stream_chat([{"role": "user", "content": content}], [WEATHER], **fields))
    bodies = [request.body for request in world.vendors["anthropic"].requests]
    assert [body["messages"][0]["content"][0]["text"] for body in bodies] == ["Hi", "Hi", "Hello", "Hello"]
    assert [body.get("metadata") for body in bodies] == [None, {"user_id": "u1"}] * 2
    assert all(body["tools"] == bodies[0]["tools"] and body["temperature"] == 0.5 for body in bodies)


async def test_a_refused_parameter_is_refused_again(world: World) -> None:
    adapter = await world.adapter("anthropic")
    for _ in range(2):
        _, error = await failing(adapter.stream_chat(HI, seed=1))
        assert error.message == "anthropic does not support parameters: ['seed']"
    assert text_of(await play(adapter.stream_chat(HI, seed=1, weir_fallback=True))) == "Hello"


async def test_long_and_strange_parameters_are_translated_each_time(world: World) -> None:
    strange = {**WEATHER, "function": {**WEATHER["function"], "strict": object}}  # type: ignore[dict-item]
    for tool in ({**WEATHER, "function": {"name": "x", "description": "x" * LONGEST}}, strange):
        adapter = await world.adapter("anthropic")
        await outcome(adapter, HI, {"tools": [tool]})
        assert adapter._translation is not None
        assert adapter._translation._kept.cache_info().currsize == 0
    assert len(world.vendors["anthropic"].requests[0].body["tools"][0]["description"]) == LONGEST


def test_a_copy_has_nothing_in_common() -> None:
    said: dict[str, Any] = {"a": [1, {"b": None}], "c": bytearray(b"d"), "e": (2.5, True)}
    copy = copied(said)
    assert copy == said
    copy["a"][1]["b"] = 1
    copy["c"].append(1)
    assert said["a"] == [1, {"b": None}]
    assert said["c"] == b"d"


async def test_the_library_is_out_of_the_garbage_collectors_way(world: World) -> None:
    """Or a full collection would stop all streams for more than a tenth of a second."""
    await (await world.adapter("anthropic")).create_model()
    frozen = gc.get_freeze_count()
    await (await world.adapter("gemini")).create_model()
    assert gc.isenabled()
    assert gc.get_freeze_count() <= frozen, "what came since then must not be frozen too"
