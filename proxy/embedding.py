"""Weir inside a program, without a server: providers registered from code, answers read as events, modes, sessions.

docs/embedding.md shows it. What goes wrong with an answer is an event at its end; wrong arguments are a RequestError.
"""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

import aiohttp

from proxy import registration, report, weir
from proxy.adapter import BaseProviderAdapter, Messages, Tools
from proxy.config import Config
from proxy.events import Event
from proxy.generator import GeneratorMode
from proxy.pipeline.control import Action, Control
from proxy.position import read_position
from proxy.provider import ProviderConfig
from proxy.reading import Asked, Reading, events_of, in_format
from proxy.registry import Registry
from proxy.request import ChatRequest
from proxy.session.conversation import Session, owner
from proxy.settings import Settings
from proxy.state.sessions import SessionRef
from proxy.streaming_request import StreamingRequest
from proxy.upstream import Upstream

OWNER = owner(None, None)  # a program's own streams belong to nobody's key


class Weir(weir.Weir):
    """A proxy of a program's own, as `Weir.open` gives it; several live side by side.

    `stream_chat` and its like take every field of `POST /api/streaming/chat` by its name: `provider_id` or
    `provider_ids`, `generator_mode`, `session_id`, `temperature` ...
    """

    def __init__(self, settings: Settings, config: Config, path: Path | None, session: aiohttp.ClientSession):
        super().__init__(settings, config, path, session)
        self._readings = WeakSet[Reading[Any]]()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings | None = None, path: Path | None = None) -> AsyncIterator["Weir"]:
        """A running proxy with the providers of the file at `path`; what still runs at the end of the block ends.

        Raises ConfigError, with every mistake in the file named.
        """
        async with super().open(settings or Settings(), path) as opened:
            assert isinstance(opened, cls)
            try:
                yield opened
            finally:
                for reading in list(opened._readings):
                    await reading.aclose()

    @property
    def registry(self) -> Registry:
        """Takes kinds of provider, modes and monitors of the program's own."""
        return self.pipeline.registry

    async def register_provider(self, config: ProviderConfig, *, verify: bool = False) -> dict[str, Any] | None:
        """Registers a provider, on every replica, or replaces the registration of that id.

        With `verify` it is asked something first, and what came of that is returned: `{"ok": True, "milliseconds"}`, or
        `{"ok": False, "error", "kind"}`. Raises ConfigError if it can never work, RequestError (409) if it stands in
        the file, StoreAway.
        """
        return (await registration.register(self, config, verify=verify)).verified

    async def register_openai_provider(
        self, provider_id: str, model_name: str, api_key: str | None = None, base_url: str | None = None, **fields: Any
    ) -> None:
        """OpenAI, or what speaks its wire at `base_url`. `fields` are further ones of ProviderConfig."""
        known = {"provider_id": provider_id, "model_name": model_name, "api_key": api_key, "base_url": base_url}
        await self.register_provider(registration.checked({"provider_type": "openai", **known, **fields}))

    async def register_anthropic_provider(
        self, provider_id: str, model_name: str, api_key: str | None = None, base_url: str | None = None, **fields: Any
    ) -> None:
        """Anthropic, whom LiteLLM translates; as `register_openai_provider`."""
        await self.register_openai_provider(
            provider_id, model_name, api_key, base_url, **{"provider_type": "anthropic", **fields}
        )

    async def unregister_provider(self, provider_id: str) -> None:
        """Takes a provider out of service, on every replica; its running streams end in peace."""
        await registration.unregister(self, provider_id)

    def list_providers(self) -> list[str]:
        """Their ids."""
        return [upstream.id for upstream in self.router]

    def get_adapter(self, provider_id: str) -> BaseProviderAdapter:
        """One provider by itself: its `stream_chat` keeps the provider's retries, limits and figures."""
        return _OneProvider(self, registration.find(self, provider_id))

    def stream_chat(
        self, messages: Messages, tools: Tools | None = None, *, stream_format: str = "generator", **fields: Any
    ) -> Reading[Any]:
        """An answer, as events or in the bytes of a format. Raises RequestError that names the argument at fault."""
        chat = self._asked({"messages": messages, "tools": tools, **fields})
        stream = self.stream(chat, OWNER)
        asked = Asked(stream.id, lambda: self.run(chat, stream), stream)
        reading: Reading[Any] = Reading(asked, in_format(stream_format, events_of(asked), chat))
        self._readings.add(reading)
        return reading

    def read_stream(self, stream_id: str, after: str | None = None) -> Reading[Event]:
        """The events of a durable stream of this program's: all of them, or those after a `Reading.position`.

        One that cannot be read has an Error as its only event. Raises RequestError for a position that is none.
        """
        position, request_id = read_position(after), secrets.token_hex(16)
        asked = Asked(stream_id, lambda: self.durable.read(stream_id, OWNER, request_id, position))
        reading = Reading(asked, events_of(asked))
        self._readings.add(reading)
        return reading

    @asynccontextmanager
    async def streaming_context(
        self, mode: str = GeneratorMode.STANDARD, config: Mapping[str, Any] | None = None, **fields: Any
    ) -> AsyncIterator["StreamingContext"]:
        """Answers in one mode. Whatever of them is still open at the end of the block is closed there.

        `fields` are for every answer. Raises RequestError for an unknown mode or option.
        """
        mode, config = str(mode), dict(config or {})
        self.registry.mode(mode, config, "generator_")
        generator = StreamingContext(self, {"generator_mode": mode, "generator_config": config, **fields})
        try:
            yield generator
        finally:
            for reading in generator.readings:
                await reading.aclose()

    def create_session(self, user_id: str | None = None, session_id: str | None = None) -> "ChatSession":
        """A conversation; one that is known goes on. Nothing is stored before the first message."""
        return ChatSession(self, session_id or secrets.token_hex(16), user_id)

    async def control(self, stream_id: str, action: Action, **data: Any) -> dict[str, Any]:
        """Says something back to a running stream: cancel, pause, resume, feedback or steer (`pipeline/control.py`).

        Not from the loop that reads it: most take effect in what it reads next. Raises RequestError, StoreAway.
        """
        return await self.controls.send(stream_id, OWNER, Control.read(action, data))

    async def health_check_all(self, probe: bool = False) -> dict[str, Any]:
        """As `GET /providers/health`: state and figures of each provider. `probe` asks each of them now."""
        return await report.health(self, probe)

    async def get_statistics(self) -> dict[str, Any]:
        """As `GET /api/streaming/stats`: active streams and sessions, sockets, modes, providers."""
        return await report.statistics(self)

    def _asked(self, body: dict[str, Any]) -> ChatRequest:
        """The request that `body` is, found to be one that can be answered. Raises RequestError."""
        given = {name: value for name, value in body.items() if value is not None}
        asked = StreamingRequest(given, secrets.token_hex(16), self.router.default)
        asked.chat.owner = owner(None, asked.user_id)
        self.pipeline.check(asked.chat)
        return asked.chat


class StreamingContext:
    """What `streaming_context` gives. Several answers may be read at once."""

    def __init__(self, weir: Weir, fields: dict[str, Any]):
        self._weir = weir
        self._fields = fields
        self.readings: list[Reading[Event]] = []

    def generate(self, messages: Messages, tools: Tools | None = None, **fields: Any) -> Reading[Event]:
        """The events of an answer. Raises RequestError that names the argument at fault."""
        reading = self._weir.stream_chat(messages, tools, **{**self._fields, **fields})
        self.readings.append(reading)
        return reading


class ChatSession:
    """A conversation: each question goes to the provider with what was said before."""

    def __init__(self, weir: Weir, id: str, user_id: str | None):
        self.id = id
        self.user_id = user_id
        self._weir = weir
        self._ref = SessionRef.of(owner(None, user_id), id)

    def stream_chat(self, messages: Messages, tools: Tools | None = None, **fields: Any) -> Reading[Any]:
        """As `Weir.stream_chat`; `messages` are the new ones alone."""
        ours: dict[str, Any] = {"session_id": self.id, "user_id": self.user_id}
        return self._weir.stream_chat(messages, tools, **fields, **ours)

    async def load(self) -> Session | None:
        """What was asked, answered and thought of it; None before the first message. Raises StoreAway."""
        return await self._weir.sessions.load(self._ref)

    async def delete(self) -> bool:
        """Forgets it, on every replica; False if there was nothing. Raises StoreAway."""
        return await self._weir.sessions.delete(self._ref)


class _OneProvider(BaseProviderAdapter):
    """A provider, asked as an adapter is, and served as a request is."""

    def __init__(self, weir: Weir, upstream: Upstream):
        super().__init__(upstream.config, upstream.adapter.session)
        self._weir = weir
        self._upstream = upstream

    async def create_model(self) -> None:
        await self._upstream.prepare()

    def stream_chat(self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any) -> Reading[Event]:
        """Raises RequestError that names the argument at fault; what else goes wrong is an event."""
        model = kwargs.pop("model", None)
        provider_id = f"{self._upstream.id}/{model}" if model else self._upstream.id
        return self._weir.stream_chat(messages, tools, provider_id=provider_id, **kwargs)

    def supports_feature(self, feature: str) -> bool:
        return self._upstream.adapter.supports_feature(feature)
