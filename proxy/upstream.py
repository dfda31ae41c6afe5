"""One provider as this process sees it: its registration, its adapter, its circuit, its figures."""

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from proxy.adapter import BaseProviderAdapter, Tools
from proxy.adapters.litellm_models import takes_prefill, window_of
from proxy.circuit import Circuit
from proxy.errors import ConfigError, Kind, ProviderError, redact
from proxy.provider import ProviderConfig
from proxy.session.window import Estimate
from proxy.tally import Meter

log = logging.getLogger(__name__)

LONGEST_REST = 300.0  # seconds; a provider that asks for more patience is asked again after these
LONGEST_CLOSE = 10.0  # seconds


class Upstream:
    """`managed`: registered over REST, so it may be changed over REST. `clock` gives seconds since 1970."""

    def __init__(
        self,
        config: ProviderConfig,
        adapter: BaseProviderAdapter,
        *,
        managed: bool = False,
        clock: Callable[[], float] = time.time,
    ):
        self.id = config.provider_id
        self.config = config
        self.adapter = adapter
        self.managed = managed
        self.clock = clock
        self.circuit = Circuit()
        self.meter = Meter(clock)  # who takes it into service may have it count into another one
        self.estimate = Estimate()
        self.rests_until = 0.0  # it answered 429 and said how long to wait
        self._prepared: asyncio.Task[None] | None = None
        self._holds = 0  # streams, and requests that may yet become one
        self._retired = False
        self._closing: asyncio.Task[None] | None = None

    def usable(self) -> bool:
        now = self.clock()
        return self.rests_until <= now and self.circuit.usable(now)

    def due(self) -> float:
        """When it may be asked again, in seconds since 1970."""
        verdict = self.circuit.verdict
        return max(self.rests_until, verdict.until if verdict.open else 0.0)

    def rest(self, seconds: float) -> None:
        self.rests_until = max(self.rests_until, self.clock() + min(seconds, LONGEST_REST))

    async def context_window(self, model: str) -> int | None:
        """Tokens that a prompt and its answer may have together, with the upstream's `model`; None if nobody knows."""
        told = self.config.context_window or self.adapter.context_window(model)
        return told or await window_of(self.config.provider_type, model)

    async def goes_on(self, model: str) -> bool:
        """Whether that model takes up an assistant's last message where it ends."""
        if self.config.prefill is not None:
            return self.config.prefill
        return self.adapter.supports_feature("prefill") or await takes_prefill(self.config.provider_type, model)

    async def room(self, model: str, fields: Mapping[str, Any], tools: Tools | None = None) -> int:
        """Bytes that the messages of a request with these `fields` may have, as `window.size_of` counts them."""
        return self.estimate.room(await self.context_window(model), fields, tools)

    async def prepare(self) -> None:
        """Waits until the adapter is ready; the first call makes it so, the next one if that failed.

        May raise anything; a ConfigError says what to do.
        """
        if self._prepared is None or _failed(self._prepared):
            self._prepared = asyncio.create_task(self.adapter.create_model())
        if not self._prepared.done():
            await asyncio.shield(self._prepared)

    async def ready_to_stream(self) -> None:
        """As `prepare`, for a request: a provider that cannot work has failed, like any other that fails."""
        try:
            await self.prepare()
        except ConfigError as error:
            raise ProviderError(Kind.CONFIG, error.message) from None

    def hold(self) -> None:
        """Keeps the adapter open until `let_go`."""
        self._holds += 1

    def let_go(self) -> None:
        self._holds -= 1
        if self._retired and not self._holds:
            self._closing = asyncio.create_task(self._close())

    def began(self) -> None:
        self.hold()
        self.meter.active += 1

    def ended(self) -> None:
        self.meter.active -= 1
        self.let_go()

    async def retire(self) -> None:
        """No new streams come; those that run end in peace before the adapter is closed."""
        self._retired = True
        if not self._holds:
            await self._close()

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(LONGEST_CLOSE):
                if self._prepared is not None:
                    self._prepared.cancel()
                    await asyncio.gather(self._prepared, return_exceptions=True)
                await self.adapter.close()
        except Exception as error:  # an adapter may be a plugin's; the process goes on
            log.error("closing provider %s failed: %s", self.id, self.traceback_of(error))

    def traceback_of(self, error: BaseException) -> str:
        """What `error` says and where it was raised, for the log; without the provider's secrets."""
        text = "".join(traceback.format_exception(error))
        return redact(text, self.config.secrets(), limit=len(text))[-5000:]


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
