"""What LiteLLM's vendors are asked, and how their answers come, against fakes that speak the vendors' real wire."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import ConfigError, ProviderError
from proxy.events import Event, Finish, FinishStep, ReasoningDelta, Start, TextDelta, ToolInputDelta, Usage, Vendor
from tests.vendors.fake import KEY
from tests.vendors.responses import FakeResponses
from tests.vendors.world import FAKES, HI, World, play, text_of

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "What it is like outside",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def calls_of(events: list[Event]) -> dict[int, tuple[str, str]]:
    """slot -> name and arguments, put together as a client does it."""
    calls: dict[int, tuple[str, str]] = {}
    for event in events:
        if isinstance(event, ToolInputDelta):
            name, arguments = calls.get(event.slot, ("", ""))
            calls[event.slot] = (name + (event.name or ""), arguments + event.content)
    return calls


# An answer


@pytest.mark.parametrize("name", FAKES)
async def test_text_comes_as_start_deltas_finish_step_usage_and_finish(world: World, name: str) -> None:
    events = await play((await world.adapter(name)).stream_chat(HI))
    kinds = [type(event) for event in events]
    assert kinds == [Start, TextDelta, TextDelta, FinishStep, Usage, Finish]
    start, *_, step, usage, finish = events
    assert isinstance(start, Start)
    assert start.id
    assert start.model
    assert start.created
    assert text_of(events) == "Hello"
    assert step == FinishStep(reason="stop")
    assert isinstance(usage, Usage)
    assert usage.input_tokens >= 12, "the vendor counted 12 tokens in"
    assert usage.details is not None
    assert usage.details["total_tokens"] == usage.input_tokens + usage.output_tokens
    assert finish == Finish(usage=usage)


async def test_usage_tells_cached_and_reasoning_tokens(world: World) -> None:
    *_, usage, _ = await play((await world.adapter("cohere")).stream_chat(HI))
    assert isinstance(usage, Usage)
    assert usage.details is not None
    assert usage.details["prompt_tokens_details"] == {"cached_tokens": 5}
    for name, cached in (("anthropic", 5), ("gemini", 5)):
        *_, usage, _ = await play((await world.adapter(name, "thinking")).stream_chat(HI))
        assert isinstance(usage, Usage)
        assert usage.details is not None
        assert usage.details["prompt_tokens_details"]["cached_tokens"] == cached
        assert usage.details["completion_tokens_details"]["reasoning_tokens"] > 0


@pytest.mark.parametrize("name", ["anthropic", "gemini", "cohere"])
async def test_parallel_tool_calls_keep_their_slots(world: World, name: str) -> None:
    events = await play((await world.adapter(name, "tools")).stream_chat(HI, tools=[WEATHER]))
    assert text_of(events) == ("" if name == "cohere" else "Let me look.")
    assert calls_of(events) == {0: ("get_weather", '{"city": "Paris"}'), 1: ("get_time", '{"zone": "CET"}')}
    ids = [event.id for event in events if isinstance(event, ToolInputDelta) and event.name]
    assert len(set(ids)) == 2, f"each call has an id of its own, and only its first piece has a name: {ids}"
    assert FinishStep(reason="tool_calls") in events


async def test_a_call_without_arguments_has_an_empty_object(world: World) -> None:
    events = await play((await world.adapter("bedrock", "tools")).stream_chat(HI, tools=[WEATHER]))
    assert calls_of(events) == {0: ("now", "{}")}


async def test_a_tool_that_anthropic_runs_is_not_the_clients_to_run(world: World) -> None:
    events = await play((await world.adapter("anthropic", "search")).stream_chat(HI, web_search_options={}))
    assert text_of(events) == "It rains."
    assert not calls_of(events), "the client has no such tool, and Anthropic refuses a call without its result"
    assert FinishStep(reason="stop") in events
    events = await play((await world.adapter("anthropic", "search_and_tool")).stream_chat(HI, tools=[WEATHER]))
    assert calls_of(events) == {0: ("get_weather", '{"city": "Paris"}')}, "SDKs count on slots from 0 on"
    assert FinishStep(reason="tool_calls") in events


async def test_thoughts_bring_what_anthropic_must_get_back(world: World) -> None:
    events = await play((await world.adapter("anthropic", "thinking")).stream_chat(HI))
    thoughts = [event for event in events if isinstance(event, ReasoningDelta)]
    assert "".join(thought.content for thought in thoughts) == "Two and two make four."
    blocks = [block for thought in thoughts if thought.extra for block in thought.extra["thinking_blocks"]]
    assert blocks == [
        {"type": "thinking", "thinking": "Two and two make four.", "signature": "c2lnbmF0dXJl"},
        {"type": "redacted_thinking", "data": "aGlkZGVu"},
    ]
    world.vendors["anthropic"].requests.clear()
    answered = {"role": "assistant", "content": "4", "thinking_blocks": blocks}
    thinking = {"type": "enabled", "budget_tokens": 1024}
    body = await world.body("anthropic", [*HI, answered, {"role": "user", "content": "Why?"}], thinking=thinking)
    assert body["messages"][1]["content"][:2] == blocks, "the blocks must go back to Anthropic as they came"


async def test_thoughts_bring_what_gemini_must_get_back(world: World) -> None:
    events = await play((await world.adapter("gemini", "thinking")).stream_chat(HI))
    thoughts = [event for event in events if isinstance(event, ReasoningDelta)]
    assert "".join(thought.content for thought in thoughts) == "Two and two make four."
    kept = [thought.extra for thought in thoughts if thought.extra]
    assert kept == [{"provider_specific_fields": {"thought_signatures": ["c2lnbmF0dXJl"]}}]
    world.vendors["gemini"].requests.clear()
    answered = {"role": "assistant", "content": "4", **kept[0]}
    body = await world.body("gemini", [*HI, answered, {"role": "user", "content": "Why?"}])
    assert body["contents"][1]["parts"] == [{"text": "4", "thoughtSignature": "c2lnbmF0dXJl"}]


PICTURE = {"image_url": {"url": "data:image/png;base64,AAAA", "detail": "auto"}, "index": 0, "type": "image_url"}
PLACE = {"start_index": 0, "end_index": 5, "url": "https://rain.example", "title": "Rain"}
ODDS = {"content": [{"token": "Hi", "logprob": -0.5, "top_logprobs": []}]}


@pytest.mark.parametrize(
    ("name", "scenario", "choice", "chunk", "is_answer"),
    [
        ("gemini", "picture", {"delta": {"images": [PICTURE]}}, None, True),
        (
            "gemini",
            "sources",
            {"delta": {"annotations": [{"type": "url_citation", "url_citation": PLACE}]}},
            None,
            False,
        ),
        ("azure", "refused", {"delta": {"refusal": "I can't."}}, None, True),
        ("azure", "sources", {}, {"citations": ["https://a"]}, False),
    ],
)
async def test_what_stands_beside_the_text_is_kept(
    world: World, name: str, scenario: str, choice: Any, chunk: Any, is_answer: bool
) -> None:
    events = await play((await world.adapter(name, scenario)).stream_chat(HI))
    assert [event for event in events if isinstance(event, Vendor)] == [
        Vendor(choice=choice, chunk=chunk, answer=is_answer)
    ]


async def test_log_probabilities_stand_beside_the_text_they_are_of(world: World) -> None:
    events = await play((await world.adapter("gemini", "odds")).stream_chat(HI))
    assert [event.choice for event in events if isinstance(event, TextDelta)][:1] == [{"logprobs": ODDS}]


async def test_cohere_says_why_it_ends_and_what_it_thinks(world: World) -> None:
    assert FinishStep(reason="length") in await play((await world.adapter("cohere", "long")).stream_chat(HI))
    events = await play((await world.adapter("cohere", "thinking")).stream_chat(HI))
    assert [event.content for event in events if isinstance(event, ReasoningDelta)] == ["Two and two"]
    assert text_of(events) == "4"


async def test_a_thought_is_one_by_either_name(world: World) -> None:
    events = await play((await world.adapter("azure", "reasoned")).stream_chat(HI))
    assert [event.content for event in events if isinstance(event, ReasoningDelta)] == ["Well"]


async def test_every_choice_ends_for_itself(world: World) -> None:
    events = await play((await world.adapter("gemini", "two")).stream_chat(HI, n=2))
    assert world.vendors["gemini"].body["generationConfig"] == {"candidate_count": 2}
    assert (text_of(events, 0), text_of(events, 1)) == ("Aa", "Bb")
    assert [event.index for event in events if isinstance(event, Start)] == [0, 1]
    ends = [(event.index, event.reason) for event in events if isinstance(event, FinishStep)]
    assert ends == [(0, "stop"), (1, "length")]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # LiteLLM's, of its own usage
async def test_a_model_whose_tools_need_another_api_is_asked_by_it(world: World) -> None:
    async with FakeResponses() as vendor:
        config: Any = {"model_name": "gpt-5.4", "params": {}}
        adapter = await world.adapter("azure", **config, base_url=vendor.url("tools"))
        events = await play(adapter.stream_chat(HI, [WEATHER]))
        assert calls_of(events) == {0: ("get_weather", '{"city": "Paris"}')}
        assert FinishStep(reason="tool_calls") in events
        stream = (await world.adapter("azure", **config, base_url=vendor.url("hang"))).stream_chat(HI, [WEATHER])
        async for event in stream:
            if isinstance(event, ToolInputDelta):
                break
        async with asyncio.timeout(1):
            await stream.aclose()
            await vendor.left.wait()


# A question


async def test_tools_and_tool_choice_reach_the_vendor(world: World) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    body = await world.body("anthropic", tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
    assert body["tools"][0]["name"] == "get_weather"
    assert body["tools"][0]["input_schema"] == WEATHER["function"]["parameters"]  # type: ignore[index]
    assert body["tool_choice"] == {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}
    body = await world.body("gemini", tools=[WEATHER], tool_choice=choice)
    assert body["tools"][0]["function_declarations"][0]["name"] == "get_weather"
    assert body["toolConfig"]["functionCallingConfig"] == {"mode": "ANY", "allowed_function_names": ["get_weather"]}


async def test_the_result_of_a_tool_reaches_the_vendor(world: World) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    said: list[dict[str, Any]] = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    body = await world.body("anthropic", said, tools=[WEATHER])
    assert body["messages"][1]["content"][0]["input"] == {"city": "Paris"}
    assert body["messages"][2]["content"][0]["content"] == "sunny"
    body = await world.body("gemini", said, tools=[WEATHER])
    assert body["contents"][1]["parts"][0]["function_call"]["args"] == {"city": "Paris"}
    assert body["contents"][2]["parts"][0]["function_response"]["response"] == {"content": "sunny"}


async def test_images_reach_the_vendor(world: World) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    asked = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, picture]}]
    body = await world.body("anthropic", asked)
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    assert body["messages"][0]["content"][1] == {"type": "image", "source": source}
    body = await world.body("gemini", asked)
    assert body["contents"][0]["parts"][1] == {"inline_data": {"data": PIXEL, "mime_type": "image/png"}}


async def test_a_json_schema_reaches_the_vendor(world: World) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    body = await world.body("anthropic", response_format=wanted)
    assert body["output_format"]["schema"]["properties"] == schema["properties"]
    body = await world.body("gemini", response_format=wanted)
    assert body["generationConfig"]["response_json_schema"]["properties"] == schema["properties"]


async def test_fields_of_the_vendors_own_reach_it(world: World) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    body = await world.body("anthropic", thinking=thinking, top_k=5, max_tokens=2000)
    assert (body["thinking"], body["top_k"], body["max_tokens"]) == (thinking, 5, 2000)
    harmless = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    body = await world.body("gemini", safety_settings=harmless, top_k=5)
    assert body["safetySettings"] == harmless
    assert body["generationConfig"]["top_k"] == 5


async def test_openais_bookkeeping_is_neither_refused_nor_passed_on(world: World) -> None:
    notes = {"ticket": "42"}
    body = await world.body("anthropic", metadata=notes, store=False, user="u1", stream_options={}, temperature=None)
    assert body["metadata"] == {"user_id": "u1"}
    assert not {"store", "temperature", "stream_options"} & body.keys()


async def test_the_operators_settings_reach_the_vendor(world: World) -> None:
    adapter = await world.adapter("anthropic", headers={"x-team": "blue"}, params={"temperature": 0.5, "top_p": 0.9})
    await play(adapter.stream_chat(HI, model="claude-opus-4-5", temperature=0.1))
    request = world.vendors["anthropic"].requests[0]
    assert request.headers["x-team"] == "blue"
    assert request.headers["accept-encoding"] == "identity", "compression would hold tokens back"
    assert request.body["model"] == "claude-opus-4-5"
    assert request.body["top_p"] == 0.9
    assert request.body["temperature"] == 0.1, "params are defaults, which a client may override"


async def test_the_clients_messages_stay_as_they_are(world: World) -> None:
    """The next provider must get what the client sent, not what LiteLLM made of it for this one."""
    mine: list[dict[str, Any]] = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi "}]
    await world.body("anthropic", mine)
    assert mine == [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi "}]


# The library


async def test_an_unknown_vendor_is_refused_with_close_matches(world: World) -> None:
    for typo, meant in (("antropic", "anthropic"), ("gemni", "gemini"), ("dotprompt", "")):
        with pytest.raises(ConfigError) as caught:
            await (await world.adapter("anthropic", provider_type=typo)).create_model()
        assert f"provider_type: {typo!r} is not known" in caught.value.message
        assert meant in caught.value.message


async def test_features_come_from_the_model_map(world: World) -> None:
    knows = await world.adapter("anthropic")
    await knows.create_model()
    assert [knows.supports_feature(it) for it in ("streaming", "tools", "vision", "reasoning", "json")] == [True] * 5
    assert not knows.supports_feature("levitation")
    older = await world.adapter("azure")
    await older.create_model()
    assert older.supports_feature("vision")
    assert not older.supports_feature("reasoning"), "GPT-4o does not think"
    unknown = await world.adapter("anthropic", model_name="claude-of-tomorrow")
    await unknown.create_model()
    assert unknown.supports_feature("tools"), "an unknown model gets the benefit of the doubt"


def test_the_library_is_not_imported_with_the_adapter() -> None:
    """It takes seconds and 160 MB, which a process without such a provider does not have to spend."""
    check = "import sys, proxy.adapters.litellm; sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


async def test_the_library_keeps_quiet(
    world: World, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It may not write down what somebody asked, was answered, or has for a key."""
    caplog.set_level(logging.DEBUG)
    secret = [{"role": "user", "content": "my-little-secret"}]
    for scenario in ("text", "tools", "error_midway", "cut", "server_error", "unauthorized"):
        stream = (await world.adapter("anthropic", scenario)).stream_chat(secret)
        try:
            await play(stream)
        except ProviderError:
            continue
    printed = "".join(capfd.readouterr())
    logged = " ".join(record.getMessage() for record in caplog.records)
    assert not printed, f"printed: {printed}"
    for private in ("my-little-secret", KEY, "Let me look"):
        assert private not in logged
