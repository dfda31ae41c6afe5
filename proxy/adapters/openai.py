"""Providers that speak OpenAI's wire are relayed, not translated: one decode a chunk, and its bytes are kept."""

from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import msgspec

from proxy.adapter import BaseProviderAdapter, Messages, Tools
from proxy.adapters.call_ids import unsigned
from proxy.adapters.http import ask, refusal, rest_of
from proxy.adapters.openai_chunks import ChunkReader
from proxy.adapters.token_body import by_tokens
from proxy.errors import Kind, ProviderError, redact
from proxy.events import Event
from proxy.provider import ProviderConfig
from proxy.sse import SSEDecoder

BASE_URLS = {
    "openai": "https://api.openai.com/v1",
    "groq": "https://api.groq.com/openai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "ollama": "http://127.0.0.1:11434/v1",
}


class OpenAIAdapter(BaseProviderAdapter):
    """OpenAI itself and everything that speaks its chat completions: vLLM, llama.cpp, Ollama, another Weir ..."""

    features = frozenset({"streaming", "tools", "vision", "reasoning", "json", "n"})

    def __init__(self, config: ProviderConfig, session: aiohttp.ClientSession):
        super().__init__(config, session)
        # Fields of the body that a request need not name. Where `stream_options` is null, none are sent.
        self.defaults = config.params

    async def stream_chat(
        self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
    ) -> AsyncGenerator[Event, None]:
        if self.config.provider_type != "openai_compatible":  # behind which Gemini may well be
            messages = unsigned(messages)
        body = {"model": self.config.model_name, **self.defaults, **kwargs, "messages": messages, "stream": True}
        if self.defaults.get("stream_options", {}) is None:
            del body["stream_options"]
        else:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        if tools is not None:
            body["tools"] = tools
        async with await self._post(body) as response:
            chunks, decoder, content = ChunkReader(self._redact), SSEDecoder(), by_tokens(response)
            try:
                while data := await content.readany():
                    for payload in decoder.feed(data):
                        if not payload:
                            continue  # the heartbeat of some gateways
                        if payload.startswith(b"[DONE]"):
                            yield chunks.finish()
                            if not content.at_eof():
                                await rest_of(response)  # the connection can then serve the next request
                            return
                        for event in chunks.read(payload):
                            yield event
            except (aiohttp.ClientError, ConnectionError) as error:
                if not chunks.complete:
                    raise ProviderError(Kind.CUT, self._redact(f"the connection broke: {error!r}")) from None
            except ValueError as error:
                raise ProviderError(Kind.GARBLED, str(error)) from None
            yield chunks.finish(least=body.get("n") or 1)  # nobody said that this was all

    async def endpoint(self) -> tuple[str, dict[str, str]]:
        """Where to ask, and the headers that let us in."""
        base = self.config.base_url or BASE_URLS[self.config.provider_type]
        key = self.config.api_key
        headers = {"authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        headers |= {name.lower(): value.get_secret_value() for name, value in self.config.headers.items()}
        return f"{base}/chat/completions", headers

    async def _post(self, body: dict[str, Any]) -> aiohttp.ClientResponse:
        url, headers = await self.endpoint()
        headers = {"content-type": "application/json", **headers}
        response = await ask(self.session, self.config, "POST", url, headers, msgspec.json.encode(body))
        if response.status != 200 or response.content_type != "text/event-stream":
            async with response:
                raise await self._refusal(response)
        return response

    async def _refusal(self, response: aiohttp.ClientResponse) -> ProviderError:
        return refusal(response, await rest_of(response), self.config)

    def _redact(self, text: str) -> str:
        return redact(text, self.config.secrets())
