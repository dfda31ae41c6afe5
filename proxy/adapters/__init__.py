"""The built-in adapters. They come in by the same door as a plugin's."""

from proxy.adapters.litellm import LiteLLMAdapter
from proxy.adapters.local import LocalAdapter
from proxy.adapters.openai import BASE_URLS, OpenAIAdapter
from proxy.registry import Registry


def register(registry: Registry) -> None:
    for provider_type in ("openai_compatible", *BASE_URLS):
        registry.add_adapter(provider_type, OpenAIAdapter)
    registry.add_adapter("local", LocalAdapter)
    registry.serve_all_others(LiteLLMAdapter)
