"""Providers that speak OpenAI's wire are relayed, not translated: one decode a chunk, and its bytes are kept."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import msgspec

from proxy.adapter import BaseProviderAdapter, Messages, Tools
from proxy.adapters.openai_chunks import ChunkReader
from proxy.adapters.token_body import by_tokens
from proxy.errors import Kind, ProviderError, redact
from proxy.events import Event
from proxy.provider import ProviderConfig
from proxy.retry_after import retry_after
from proxy.sse import SSEDecoder

BASE_URLS = {
    "openai": "https://api.openai.com/v1",
    "groq": "https://api.groq.com/openai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "ollama": "http://127.0.0.1:11434/v1",
}

# Compression would make the provider's server hold tokens back.
_ASKING = {"content-type": "application/json", "accept-encoding": "identity"}

READ_AHEAD = 16 * 1024  # bytes of an answer that wait here; then its provider waits
PATIENCE = 0.5  # seconds, for a body that has little more to say than we know


class OpenAIAdapter(BaseProviderAdapter):
    """OpenAI itself and everything that speaks its chat completions: vLLM, llama.cpp, Ollama, another Weir ..."""

    features = frozenset({"streaming", "tools", "vision", "reasoning", "json", "n"})

    def __init__(self, config: ProviderConfig, session: aiohttp.ClientSession):
        super().__init__(config, session)
        # Fields of the body that a request need not name. Where `stream_options` is null, none are sent.
        self.defaults = config.params
        self._timeout = aiohttp.ClientTimeout(total=None, connect=config.timeouts.connect)

    async def stream_chat(
        self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
    ) -> AsyncGenerator[Event, None]:
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
        url, ours = await self.endpoint()
        trusting = self.session.trust_env
        try:
            response = await self.session.post(
                url,
                data=msgspec.json.encode(body),
                headers=_ASKING if trusting else {**_ASKING, **ours},
                allow_redirects=False,  # one would carry the key elsewhere
                read_bufsize=READ_AHEAD,
                timeout=self._timeout,
                middlewares=(_signed(ours),) if trusting else (),
            )
        except TimeoutError:
            raise ProviderError(Kind.CONNECT, f"no connection within {self.config.timeouts.connect:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderError(Kind.CONNECT, self._redact(str(error) or repr(error))) from None
        if response.status != 200 or response.content_type != "text/event-stream":
            async with response:
                raise await self._refusal(response)
        return response

    async def _refusal(self, response: aiohttp.ClientResponse) -> ProviderError:
        text = (await rest_of(response)).decode(errors="replace")
        return refusal(response, self._redact(error_message(text)))

    def _redact(self, text: str) -> str:
        return redact(text, self.config.secrets())


def _signed(headers: dict[str, str]) -> aiohttp.ClientMiddlewareType:
    """Keeps a key of ~/.netrc, which a session reads where it trusts the environment, from taking the place of ours."""

    async def sign(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        request.headers.pop("authorization", None)
        request.headers.update(headers)
        return await send(request)

    return sign


def refusal(response: aiohttp.ClientResponse, said: str) -> ProviderError:
    """An answer that is no stream; `said` is what its body says."""
    status = response.status
    if status < 400:
        message = f"answered {status} {response.content_type} instead of an event stream: {said}"
        return ProviderError(Kind.GARBLED, message, upstream_status=status)
    wait = retry_after(response.headers)
    return ProviderError(
        Kind.of_status(status), said or response.reason or "", upstream_status=status, retry_after=wait
    )


def error_message(text: str) -> str:
    """What an error body says; vendors nest it in several ways. HTML says nothing worth repeating."""
    try:
        body = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return "an HTML page" if text.lstrip().startswith("<") else text.strip()
    if isinstance(body, list) and body:  # Gemini
        body = body[0]
    while isinstance(body, dict):
        body = next((body[name] for name in ("error", "message", "Message", "detail") if body.get(name)), "")
    return body if isinstance(body, str) else text.strip()


async def rest_of(response: aiohttp.ClientResponse) -> bytes:
    """What else comes of a body soon, up to 64 KB or until it breaks."""
    data = b""
    try:
        async with asyncio.timeout(PATIENCE):
            while len(data) < 65536 and (piece := await response.content.readany()):
                data += piece
    except (TimeoutError, aiohttp.ClientError, ConnectionError):
        pass  # what matters is known; the connection will not be used again
    return data
