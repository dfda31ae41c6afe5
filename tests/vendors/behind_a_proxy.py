"""A question to each vendor through Weir's LiteLLM adapter, in a process whose environment says how to reach the world.

usage: behind_a_proxy.py <JSON of a ProviderConfig>...
"""

import asyncio
import sys

import aiohttp

from proxy.adapters.litellm import LiteLLMAdapter
from proxy.events import TextDelta
from proxy.provider import ProviderConfig


async def ask(*configs: ProviderConfig) -> None:
    async with aiohttp.ClientSession(trust_env=True) as session:
        for config in configs:
            async for event in LiteLLMAdapter(config, session).stream_chat([{"role": "user", "content": "Hi"}]):
                if isinstance(event, TextDelta):
                    print(event.content, end="")
            print()


asyncio.run(ask(*map(ProviderConfig.model_validate_json, sys.argv[1:])))
