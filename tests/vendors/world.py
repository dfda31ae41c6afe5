"""The vendors' fakes and adapters for them, as the tests of the LiteLLM adapter need them."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from proxy.adapters.litellm import LiteLLMAdapter
from proxy.errors import ProviderError
from proxy.events import Event, TextDelta
from proxy.provider import ProviderConfig
from tests.vendors.anthropic import FakeAnthropic
from tests.vendors.azure import FakeAzure
from tests.vendors.bedrock import FakeBedrock
from tests.vendors.cohere import FakeCohere
from tests.vendors.compatible import FakeCompatible
from tests.vendors.fake import KEY, FakeVendor
from tests.vendors.gemini import FakeGemini

HI = [{"role": "user", "content": "Hi"}]
CONFIGS: dict[str, Any] = {
    "anthropic": {"model_name": "claude-sonnet-4-5", "api_key": KEY},
    "gemini": {"model_name": "gemini-2.5-flash", "api_key": KEY},
    "azure": {"model_name": "gpt-4o", "api_key": KEY, "params": {"api_version": "2024-10-21"}},
    "cohere": {"model_name": "command-a-03-2025", "api_key": KEY},
    "deepinfra": {"model_name": "llama", "api_key": KEY},  # LiteLLM's list of its parameters lacks `max_retries`
    "scaleway": {"model_name": "llama", "api_key": KEY},  # one of those that stand in LiteLLM's file
    "xai": {"model_name": "grok-4", "api_key": KEY},  # in the list of those behind OpenAI's SDK, but called over HTTP
    "bedrock": {
        "model_name": "anthropic.claude-3-haiku-20240307-v1:0",
        "params": {"aws_region_name": "us-east-1", "aws_access_key_id": "AKIAFAKE", "aws_secret_access_key": "s3cr3t"},
    },
}
FAKES: dict[str, Callable[[], FakeVendor]] = {
    "anthropic": FakeAnthropic,
    "gemini": FakeGemini,
    "azure": FakeAzure,
    "cohere": FakeCohere,
    "deepinfra": FakeCompatible,
    "scaleway": FakeCompatible,
    "xai": FakeCompatible,
    "bedrock": FakeBedrock,
}


class World:
    """The vendors that a test has called into being, and adapters for them."""

    def __init__(self, session: aiohttp.ClientSession):
        self.session = session
        self.vendors: dict[str, FakeVendor] = {}

    async def vendor(self, name: str) -> FakeVendor:
        if name not in self.vendors:
            self.vendors[name] = await FAKES[name]().__aenter__()
        return self.vendors[name]

    async def adapter(self, name: str, scenario: str = "text", **config: Any) -> LiteLLMAdapter:
        base = (await self.vendor(name)).url(scenario) + {"gemini": "/v1beta", "cohere": "/v2/chat"}.get(name, "")
        fields = {"provider_id": name, "provider_type": name, "base_url": base, **CONFIGS[name], **config}
        return LiteLLMAdapter(ProviderConfig.model_validate(fields), self.session)

    async def body(self, name: str, messages: list[dict[str, Any]] = HI, /, **fields: Any) -> Any:
        """What reaches the vendor when a client asks so."""
        await play((await self.adapter(name)).stream_chat(messages, **fields))
        return self.vendors[name].body


async def play(stream: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in stream]


async def failing(stream: AsyncIterator[Event]) -> tuple[list[Event], ProviderError]:
    """The events of a stream that fails, and how it fails."""
    events: list[Event] = []
    try:
        async for event in stream:
            events.append(event)  # what came before the failure counts
    except ProviderError as error:
        return events, error
    pytest.fail(f"the stream ended as if all were well, with {events[-1]}")


def text_of(events: list[Event], index: int = 0) -> str:
    return "".join(event.content for event in events if isinstance(event, TextDelta) and event.index == index)
