"""Providers, row by row: who may answer, and how one is registered."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from proxy import (
    BaseProviderAdapter,
    Event,
    Finish,
    FinishStep,
    Messages,
    ProviderConfig,
    Start,
    TextDelta,
    Tools,
    Weir,
)
from proxy.testing import ScriptedUpstream, play, text, text_of
from tests.guide.asking import HI, heard, pieces
from tests.plugins.test_agno_agent import FILE as AGENT_FILE
from tests.plugins.test_agno_agent import PYTHON as WITH_AGNO
from tests.plugins.test_agno_agent import needs_agno
from tests.process import call, chat, weir
from tests.server import serving
from tests.vendors.anthropic import FakeAnthropic
from tests.vendors.fake import KEY

pytestmark = pytest.mark.anyio

OWN_PROVIDER = """
from proxy import BaseProviderAdapter, Finish, FinishStep, Registry, Start, TextDelta


class Shout(BaseProviderAdapter):
    async def stream_chat(self, /, messages, tools=None, **kwargs):
        yield Start(model=self.config.model_name)
        yield TextDelta(content=messages[-1]["content"].upper())
        yield FinishStep(reason="stop")
        yield Finish()


def register(registry: Registry) -> None:
    registry.add_adapter("shout", Shout)
"""


async def test_g01_register_an_openai_provider() -> None:
    """Register an OpenAI provider, from code and over REST: `register_openai_provider(...)`, `provider_id`,
    `provider_type`, `model_name`, `api_key`, base URL."""
    async with ScriptedUpstream(text("hello")) as openai:
        async with Weir.open() as weir:
            await weir.register_openai_provider(
                "openai_gpt35", model_name="gpt-3.5-turbo", api_key="sk-code", base_url=openai.url
            )
            assert text_of(await play(weir.stream_chat(HI, provider_id="openai_gpt35"))) == "hello"
        async with serving() as server:
            body = {"provider_id": "openai_gpt35", "provider_type": "openai", "model_name": "gpt-3.5-turbo"}
            got = await server.ask("POST", "/providers", {**body, "api_key": "sk-rest", "base_url": openai.url})
            assert got.status == 201, got.body
            assert pieces(await heard(server, provider_id="openai_gpt35")) == ["hello"]
    assert [request.headers["authorization"] for request in openai.requests] == ["Bearer sk-code", "Bearer sk-rest"]
    assert {request.body["model"] for request in openai.requests} == {"gpt-3.5-turbo"}


async def test_g02_register_an_anthropic_provider() -> None:
    """Register an Anthropic provider: `register_anthropic_provider(...)`; LiteLLM translates."""
    async with FakeAnthropic() as anthropic, Weir.open() as weir:
        await weir.register_anthropic_provider(
            "claude", model_name="claude-sonnet-4-5", api_key=KEY, base_url=anthropic.url("text")
        )
        assert text_of(await play(weir.stream_chat(HI, provider_id="claude"))) == "Hello"
        asked = anthropic.requests[0]
        assert asked.path.endswith("/v1/messages"), "Anthropic was not asked in its own words"
        assert asked.headers["x-api-key"] == KEY
        assert asked.body["max_tokens"] > 0, "a field that Anthropic needs and OpenAI's wire does not"


async def test_g03_local_models_are_providers_like_any_other() -> None:
    """Local models are providers like any other: "OpenAI, Anthropic, local models and more"."""
    async with serving() as server:
        model = {"provider_id": "mine", "provider_type": "local", "model_name": "SmolLM2-135M-Instruct"}
        assert (await server.ask("POST", "/providers", model)).status == 201
        events = await heard(server, text="Say hello.", provider_id="mine", max_tokens=8)
        assert "".join(pieces(events)).strip(), "a real model said nothing"
        assert events[-1]["type"] == "finish"
        assert events[-1]["usage"]["output_tokens"] > 0


@needs_agno
async def test_g04_an_agno_agent_is_a_provider_like_any_other(tmp_path: Path) -> None:
    """An agno Agent is a provider like any other, with the id `agno_native`: "seamless with the existing agent
    management"."""
    async with (
        ScriptedUpstream(text("Good ", "day.")) as model,
        weir(tmp_path, AGENT_FILE, python=str(WITH_AGNO), UPSTREAM=model.url) as server,
    ):
        status, answer = await call(f"{server.url}/v1/chat/completions", chat(model="agno_native"))
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "Good day.")
        _, health = await call(f"{server.url}/providers/health")
        assert health["providers"]["agno_native"]["total"]["successes"] == 1


async def test_g05_a_new_kind_of_provider_is_one_small_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new kind of provider is one small class: `BaseProviderAdapter` with `create_model`,
    `stream_chat(messages, tools, **kwargs)`, `supports_feature(feature)`."""

    class Polite(BaseProviderAdapter):
        """As the guide's examples have it, all three methods written out."""

        async def create_model(self) -> None:
            self.greeting = "Dear reader, "

        async def stream_chat(
            self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
        ) -> AsyncGenerator[Event, None]:
            yield Start()
            yield TextDelta(content=self.greeting + messages[-1]["content"])
            yield FinishStep(reason="stop")
            yield Finish()

        def supports_feature(self, feature: str) -> bool:
            return feature in ("streaming", "politeness")

    async with Weir.open() as weir:
        weir.registry.add_adapter("polite", Polite)
        await weir.register_provider(ProviderConfig(provider_id="p", provider_type="polite", model_name="none"))
        adapter = weir.get_adapter("p")
        assert text_of(await play(adapter.stream_chat(HI))) == "Dear reader, hi"
        assert adapter.supports_feature("politeness")

    (tmp_path / "shout_plugin.py").write_text(OWN_PROVIDER)
    monkeypatch.syspath_prepend(tmp_path)
    (file := tmp_path / "providers.yaml").write_text("plugins: [shout_plugin]")
    async with serving(file) as server:
        loud = {"provider_id": "loud", "provider_type": "shout", "model_name": "none"}
        assert (await server.ask("POST", "/providers", loud)).status == 201
        assert pieces(await heard(server, provider_id="loud")) == ["HI"]


async def test_g06_fetch_one_providers_adapter_and_stream_from_it() -> None:
    """Fetch one provider's adapter and stream from it in code: `manager.get_adapter("openai_gpt35")`,
    `async for event in adapter.stream_chat(messages)`."""
    async with ScriptedUpstream(text("hel", "lo")) as openai, Weir.open() as manager:
        await manager.register_openai_provider("openai_gpt35", "gpt-3.5-turbo", base_url=openai.url)
        adapter = manager.get_adapter("openai_gpt35")
        said = ""
        async for event in adapter.stream_chat(HI):
            if isinstance(event, TextDelta):
                said += event.content
        assert said == "hello"


async def test_g07_register_over_rest_at_the_guides_path() -> None:
    """`POST /api/streaming/providers/register` with
    `{"provider_id", "provider_type": "openai", "model_name", "api_key"}`."""
    async with serving() as server:
        body = {"provider_id": "one", "provider_type": "openai", "model_name": "gpt-4o", "api_key": "sk-0123456789"}
        got = await server.ask("POST", "/api/streaming/providers/register", body)
        assert got.status == 201, got.body
        assert (got.body["provider_id"], got.body["api_key_set"]) == ("one", True)
        assert "sk-0123456789" not in str(got.body), "a key was shown"
        listed = (await server.ask("GET", "/providers")).body["providers"]
        assert [provider["provider_id"] for provider in listed] == ["one"]


async def test_g08_several_providers_answer_for_comparison() -> None:
    """Several providers answer the same messages: "multi-vendor comparison"."""
    async with (
        ScriptedUpstream(text("from ", "OpenAI")) as openai,
        FakeAnthropic() as anthropic,
        serving() as server,
    ):
        await server.register(openai, "openai")
        await server.register(
            anthropic.url("text"), "claude", provider_type="anthropic", model_name="claude-sonnet-4-5", api_key=KEY
        )
        events = await heard(server, text="Compare.", provider_ids=["openai", "claude"])
        assert "".join(pieces(events, "openai")) == "from OpenAI"
        assert "".join(pieces(events, "claude")) == "Hello"
        assert openai.requests[0].body["messages"][0]["content"] == "Compare."
        assert "Compare." in str(anthropic.body["messages"]), "they were asked different things"
        ends = {event["source"]: event["reason"] for event in events if event["type"] == "data-source-end"}
        assert ends == {"openai": "finish", "claude": "finish"}, "each of them tells how it ended"
