"""Which providers serve a model, healthiest and preferred first."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import aiohttp

from proxy.errors import ConfigError, RequestError, redact
from proxy.provider import ProviderConfig
from proxy.registry import Registry
from proxy.upstream import Upstream

Route = tuple[Upstream, str]  # and the upstream's name of the model


class Router:
    """The providers of this process, by id and by the names of their models."""

    def __init__(self, registry: Registry, session: aiohttp.ClientSession, clock: Callable[[], float] = time.time):
        self._registry = registry
        self._session = session
        self._clock = clock
        self._upstreams: dict[str, Upstream] = {}
        self._by_name: dict[str, list[Upstream]] = {}
        self._any_durable = False
        self.complete = True  # False: others may be registered, and Redis has not said which

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self._upstreams.values())

    def get(self, provider_id: str) -> Upstream | None:
        return self._upstreams.get(provider_id)

    def build(self, config: ProviderConfig, *, managed: bool) -> Upstream:
        """An upstream that is not in service yet. Raises ConfigError, for an unknown provider_type say."""
        adapter_type = self._registry.adapter(config.provider_type)
        if managed and adapter_type.only_in_file:
            problem = f"provider_type {config.provider_type!r} runs code: only providers.yaml may name it"
            raise ConfigError([problem])
        try:
            adapter = adapter_type(config, self._session)
        except ConfigError:
            raise
        except Exception as error:  # an adapter may be a plugin's
            said = redact(f"its adapter cannot be made: {error!r}", config.secrets())
            raise ConfigError([f"provider {config.provider_id}: {said}"]) from None
        return Upstream(config, adapter, managed=managed, clock=self._clock)

    async def put(self, upstream: Upstream) -> None:
        """Takes `upstream` into service, in place of the one with its id; the circuit stays as it is."""
        old = self._upstreams.get(upstream.id)
        if old is not None:
            upstream.circuit = old.circuit
        self._upstreams[upstream.id] = upstream
        self._index()
        if old is not None:
            await old.retire()

    async def remove(self, provider_id: str) -> None:
        old = self._upstreams.pop(provider_id, None)
        self._index()
        if old is not None:
            await old.retire()

    def models(self) -> dict[str, list[Upstream]]:
        """Every name that may stand in a request's `model`, with who serves it."""
        return self._by_name

    def default(self) -> str:
        """Who answers where nobody is named: of those in service the preferred one. Raises RequestError (404)."""
        if not self._upstreams:
            raise self._unknown("")
        if usable := [upstream for upstream in self if upstream.usable()]:
            return min(usable, key=lambda upstream: upstream.config.priority).id
        return min(self, key=Upstream.due).id

    def durable(self, model: str) -> bool:
        """Whether what is asked of `model` is to be kept before it is shown. Raises RequestError (404)."""
        return self._any_durable and any(upstream.config.durable for upstream, _ in self.routes(model))

    def routes(self, model: str, *, fallback: bool = True) -> list[Route]:
        """Who is asked for `model`, in order. Raises RequestError (404) if nobody serves it."""
        if group := self._by_name.get(model):
            routes = [(upstream, upstream.config.model_name) for upstream in group]
        else:
            provider_id, slash, name = model.partition("/")
            upstream = self._upstreams.get(provider_id)
            if upstream is None or not slash or not name:
                raise self._unknown(model)
            routes = [(upstream, name)]
        ordered = self._order(routes)
        return ordered if fallback else ordered[:1]

    def _order(self, routes: list[Route]) -> list[Route]:
        """Usable ones by priority, the least busy first among equals; if there is none, the one that is due first."""
        usable = [route for route in routes if route[0].usable()]
        if not usable:
            return [min(routes, key=lambda route: route[0].due())]
        return sorted(usable, key=_preference)

    def _index(self) -> None:
        """An id means its provider alone, whatever others call their models."""
        self._by_name = {}
        self._any_durable = any(upstream.config.durable for upstream in self)
        for upstream in self._upstreams.values():
            for name in dict.fromkeys((upstream.id, upstream.config.model_name, *upstream.config.models)):
                if name == upstream.id or name not in self._upstreams:
                    self._by_name.setdefault(name, []).append(upstream)

    def _unknown(self, model: str) -> RequestError:
        names: Iterable[str] = sorted(self._by_name)
        known = ", ".join(names) or "none: no provider is registered"
        if not self.complete:
            told = f"model {model[:200]!r} is not known here, and Redis has not said yet what is registered; try again"
            return RequestError(told, status=503, code="store_unavailable", param="model")
        return RequestError(
            f"model {model[:200]!r} is not served here; available: {known}",
            status=404,
            code="model_not_found",
            param="model",
        )

    async def close(self) -> None:
        for provider_id in list(self._upstreams):
            await self.remove(provider_id)


async def going_on(routes: Sequence[Route]) -> list[Route]:
    """Those whose model takes up an assistant's last message where it ends."""
    return [(upstream, model) for upstream, model in routes if await upstream.goes_on(model)]


def _preference(route: Route) -> tuple[int, int, float]:
    upstream = route[0]
    return upstream.config.priority, upstream.meter.active, random.random()
