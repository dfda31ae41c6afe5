"""Every vendor that does not speak OpenAI's wire: Anthropic, Gemini, Bedrock, Azure ..., translated by LiteLLM.

Only `litellm*.py` know litellm, and here it is imported. Weir uses its translation and nothing else: no retries, no
fallbacks, no callbacks, no time limits, no logs, no cost map from the network.
"""

import asyncio
import difflib
import functools
import gc
import importlib
import json
import logging
import os
import sys
import types
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import aiohttp
import httpx

from proxy.adapter import BaseProviderAdapter, Messages, Tools
from proxy.adapters import litellm_cohere
from proxy.adapters.litellm_anthropic import AnthropicTranslation
from proxy.adapters.litellm_call import UpstreamCall
from proxy.adapters.litellm_chunks import TranslatedReader, VendorReader, vendor_chunks
from proxy.adapters.litellm_errors import failure
from proxy.adapters.litellm_gemini import GeminiTranslation
from proxy.adapters.litellm_translation import Question, Translation, copied
from proxy.adapters.litellm_vendors import (
    AMBIENT,
    NO_STREAM_OPTIONS,
    NOT_VENDORS,
    OVER_HTTP,
    THROUGH_OPENAI_SDK,
    parameters,
    pick,
)
from proxy.errors import ConfigError, ProviderError
from proxy.events import Event
from proxy.provider import ProviderConfig, texts

_FEATURES = {
    "tools": "supports_function_calling",
    "vision": "supports_vision",
    "reasoning": "supports_reasoning",
    "json": "supports_response_schema",
}


_TRANSLATIONS: dict[str, type[Translation]] = {"anthropic": AnthropicTranslation, "gemini": GeminiTranslation}
_PARSERS = {litellm_cohere.PARSER: litellm_cohere.parsed}


class LiteLLMAdapter(BaseProviderAdapter):
    """One provider behind LiteLLM: `provider_type` is LiteLLM's name for it, `params` what it needs beyond a key."""

    features = frozenset({"streaming", "tools", "json", "fallback"})

    def __init__(self, config: ProviderConfig, session: aiohttp.ClientSession):
        super().__init__(config, session)
        self._litellm: Any = None
        self._translation: Translation | None = None

    async def create_model(self) -> None:
        """Imports LiteLLM, which takes seconds, and checks that it knows this vendor."""
        litellm = await asyncio.to_thread(_import_litellm)
        if problems := list(_problems(self.config, litellm)):
            raise ConfigError(problems)
        self._litellm = litellm
        translation, key = _TRANSLATIONS.get(self.config.provider_type), self._key()
        # Whatever else the operator says is for LiteLLM's own way to heed; so is to look for a key.
        if translation and key and self.config.params.keys() <= parameters(self.config.provider_type):
            self._translation = translation(litellm, self.config.base_url, key, self._headers())

    async def stream_chat(
        self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
    ) -> AsyncGenerator[Event, None]:
        """`weir_fallback=True` says that this is not the first provider asked, so that `drop_params` may apply."""
        if self._litellm is None:
            await self.create_model()
        question = self._question(messages, tools, kwargs)
        call = UpstreamCall(self.session, self.config)
        chunks = VendorReader(f"{self.config.provider_type}/{question.model}")
        try:
            direct = self._translation is not None and self._translation.suits(question)
            way = self._translated if direct else self._completed
            async with aclosing(way(question, call, chunks)) as answer:
                async for events in answer:
                    for event in events:
                        yield event
        except ProviderError:
            raise
        except Exception as error:
            raise call.failure or failure(
                error, self.config, call.asked, chunks.started, self._lacks_nothing()
            ) from None
        finally:
            call.close()
        for event in chunks.finish():
            yield event

    async def _translated(
        self, question: Question, call: UpstreamCall, chunks: VendorReader
    ) -> AsyncGenerator[list[Event], None]:
        """By LiteLLM's classes for this vendor."""
        assert self._translation is not None
        try:
            translated = await self._translation.translate(question)
        except Exception as error:
            named = {"model": question.model, "custom_llm_provider": self.config.provider_type}
            raise self._litellm.exception_type(original_exception=error, **named) from error
        reader = TranslatedReader(chunks, translated.parser, translated.pieces)
        await call.post(translated.url, translated.headers, json.dumps(translated.body).encode())
        async for payloads in call.payloads():
            for payload in payloads:
                yield reader.read(payload)

    async def _completed(
        self, question: Question, call: UpstreamCall, chunks: VendorReader
    ) -> AsyncGenerator[list[Event], None]:
        """By LiteLLM's way to all vendors."""
        stream = await self._litellm.acompletion(**self._request(question), **self._connection(call))
        source = getattr(stream, "completion_stream", None)
        try:
            async for chunk in vendor_chunks(stream, _PARSERS):
                yield chunks.read(chunk)
        finally:
            if response := getattr(getattr(source, "streaming_response", None), "response", None):
                await response.aclose()  # of OpenAI's Responses API, which LiteLLM leaves open
            if aclose := getattr(stream, "aclose", None):
                await aclose()

    def supports_feature(self, feature: str) -> bool:
        """What LiteLLM's model map says; a model it does not know is given the benefit of the doubt for a few."""
        if self._litellm is None or feature not in _FEATURES:
            return feature in self.features
        models, name = self._litellm.model_cost, self.config.model_name
        known = models.get(f"{self.config.provider_type}/{name}") or models.get(name)
        return bool(known.get(_FEATURES[feature])) if known else feature in self.features

    def _question(self, messages: Messages, tools: Tools | None, fields: dict[str, Any]) -> Question:
        """What to ask. A copy, because LiteLLM rewrites messages in place and the next provider needs them whole."""
        fields = dict(fields)
        fallback, model = bool(fields.pop("weir_fallback", False)), fields.pop("model", self.config.model_name)
        drop = self.config.drop_params == "always" or (self.config.drop_params == "fallback" and fallback)
        fields = {**self.config.params, **pick(fields, self.config.provider_type, drop)}
        fields |= {"tools": tools} if tools is not None else {}
        return Question(model, copied(messages), fields, drop)

    def _request(self, question: Question) -> dict[str, Any]:
        ours: dict[str, Any] = {"stream": True, "drop_params": question.drop}
        if self.config.provider_type not in NO_STREAM_OPTIONS:
            ours["stream_options"] = {"include_usage": True}
        asked = {**copied(question.fields), **ours, "messages": question.messages}
        return {**asked, "model": f"{self.config.provider_type}/{question.model}"}

    def _connection(self, call: UpstreamCall) -> dict[str, Any]:
        """How to ask: once, over our session, with no limit shorter than those Weir keeps itself."""
        limits = self.config.timeouts
        how = {
            "api_key": self._key(),
            "api_base": self.config.base_url,
            "extra_headers": self._headers(),
            "timeout": httpx.Timeout(limits.total, connect=limits.connect),
            "shared_session": self.session,
            "client": self._client(call),
        }
        if self._by_sdk:  # or where a vendor's list lacks it, `max_retries` is not heeded, and each is asked thrice
            allowed = self.config.params.get("allowed_openai_params") or []
            how["allowed_openai_params"] = [*allowed, "max_retries"]
        # Its MCP gateway would run tools itself, and needs a package we do not have to find out that it need not.
        never = {"num_retries": 0, "max_retries": 0, "_skip_mcp_handler": True}
        return {name: value for name, value in how.items() if value} | never

    def _key(self) -> str | None:
        if self.config.api_key is not None:
            return self.config.api_key.get_secret_value()
        if self.config.base_url and self.config.provider_type not in AMBIENT:
            return "none"  # or LiteLLM would send a key it finds in the environment to wherever base_url points
        return None

    def _lacks_nothing(self) -> bool:
        """There is a key, and the vendor needs no more: what fails before it is asked is the request."""
        return self.config.provider_type in _TRANSLATIONS and self._key() is not None

    def _headers(self) -> dict[str, str]:
        return {name: value.get_secret_value() for name, value in self.config.headers.items()}

    @functools.cached_property
    def _by_sdk(self) -> bool:
        """Whether OpenAI's SDK is in between. LiteLLM has such vendors in a list, and some in a file."""
        listed = THROUGH_OPENAI_SDK | set(self._litellm.openai_compatible_providers) - OVER_HTTP
        registry = importlib.import_module("litellm.llms.openai_like.json_loader").JSONProviderRegistry
        return self.config.provider_type in listed or registry.exists(self.config.provider_type)

    def _client(self, call: UpstreamCall) -> Any:
        """LiteLLM's HTTP client over `call`; None where OpenAI's SDK is in between, and brings its own."""
        if self._by_sdk:
            return None
        client = self._litellm.AsyncHTTPHandler(transport=call, follow_redirects=False)
        client.client = client.client  # says that it is ours: a finalizer would otherwise start a task to close it
        return client


def _import_litellm() -> Any:
    """LiteLLM, made quiet: it writes no prompt, answer or key anywhere, and asks nobody anything."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or the import fetches the map from the network
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # or it reads a .env file from wherever we were started
    # On its way to OpenAI's Responses API it looks for tools to run itself, by a package that we do not have.
    unused: Any = types.ModuleType("litellm.responses.mcp.litellm_proxy_mcp_handler")
    unused.LiteLLM_Proxy_MCP_Handler = _RunsNoTools
    sys.modules.setdefault(unused.__name__, unused)
    litellm: Any = _for_good("litellm")
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.turn_off_message_logging = True
    litellm.drop_params = False
    litellm.num_retries = None
    litellm.model_fallbacks = None
    litellm.aiohttp_trust_env = True  # for its own clients, such as those that fetch an image or a token
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        # Its warnings and errors quote requests and answers; what goes wrong is reported by us, redacted.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


class _RunsNoTools:
    """In place of LiteLLM's MCP gateway."""

    @staticmethod
    def should_use_litellm_mcp_gateway(tools: Any = None) -> bool:
        return False


def _for_good(name: str) -> Any:
    """A module that stays, with all that it brings, out of the garbage collector's way.

    LiteLLM is 300,000 objects. To look through them takes 0.15 s, in which no stream moves, again and again.
    """
    first, collects = name not in sys.modules, gc.isenabled()
    if first:
        gc.disable()
    try:
        module = importlib.import_module(name)
        if first:
            gc.freeze()
    finally:
        if first and collects:
            gc.enable()
    return module


def _problems(config: ProviderConfig, litellm: Any) -> Iterator[str]:
    vendors = sorted({str(getattr(name, "value", name)) for name in litellm.provider_list} - NOT_VENDORS)
    if config.provider_type not in vendors:
        close = difflib.get_close_matches(config.provider_type, vendors, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "it must be a provider type of Weir or of LiteLLM"
        yield f"provider_type: {config.provider_type!r} is not known; {hint}"
    for path, text in texts({**config.private(), "params": config.params}):
        if text.startswith(("os.environ/", "oidc/")):
            yield f"{'.'.join(path)}: LiteLLM would look {text.split('/')[0]}/... up by itself; give the value"
