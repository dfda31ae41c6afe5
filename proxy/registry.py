"""Names -> classes. Built-ins and plugins come in by the same door: a module with `register(registry)`."""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from proxy.adapter import BaseProviderAdapter
from proxy.errors import ConfigError, RequestError
from proxy.generator import StreamingGenerator
from proxy.monitor import Monitor
from proxy.provider import mistakes

BUILT_IN = ("proxy.adapters", "proxy.modes")


class Registry:
    """The kinds of provider, the modes and the monitors this process knows."""

    def __init__(self) -> None:
        self._adapters: dict[str, type[BaseProviderAdapter]] = {}
        self._fallback: type[BaseProviderAdapter] | None = None
        self._modes: dict[str, type[StreamingGenerator]] = {}
        self.monitors: list[Monitor] = []

    def add_adapter(self, provider_type: str, adapter: type[BaseProviderAdapter]) -> None:
        """Makes `adapter` serve every provider of that type. Raises ConfigError if another one does already."""
        if self._adapters.setdefault(provider_type, adapter) is not adapter:
            raise ConfigError([f"provider_type {provider_type!r} is registered twice"])

    def serve_all_others(self, adapter: type[BaseProviderAdapter]) -> None:
        """Makes `adapter` serve every type that nobody registered; it refuses what it does not know."""
        self._fallback = adapter

    def add_mode(self, name: str, mode: type[StreamingGenerator]) -> None:
        """Makes `mode` what a request gets that names it. Raises ConfigError if another one has that name."""
        if self._modes.setdefault(name, mode) is not mode:
            raise ConfigError([f"mode {name!r} is registered twice"])

    def add_monitor(self, monitor: Monitor) -> None:
        """Tells `monitor` of every stream from now on."""
        self.monitors.append(monitor)

    def adapter(self, provider_type: str) -> type[BaseProviderAdapter]:
        found = self._adapters.get(provider_type, self._fallback)
        if found is None:
            raise ConfigError([f"unknown provider_type {provider_type!r}; known: {', '.join(sorted(self._adapters))}"])
        return found

    def modes(self) -> list[str]:
        return sorted(self._modes)

    def mode(self, name: str, config: Mapping[str, Any], prefix: str = "weir.") -> StreamingGenerator:
        """A mode for one stream, with its options.

        Raises RequestError that names the field at fault, which begins with `prefix` in the request.
        """
        kind = self._modes.get(name)
        if kind is None:
            message = f"{prefix}mode: there is no mode {name[:100]!r}; known: {', '.join(self.modes())}"
            raise RequestError(message, param=f"{prefix}mode")
        try:
            return kind(**config)
        except ValidationError as error:
            where, what = mistakes(error)[0]
            param = ".".join([f"{prefix}config", *map(str, where)])
            known = ", ".join(kind.model_fields) or "none"
            raise RequestError(f"{param}: {what} (options of mode {name}: {known})", param=param) from None

    def load(self, module: str) -> None:
        """Lets the module `module` register what it brings. Raises ConfigError, saying what is wrong with it."""
        try:
            importlib.import_module(module).register(self)
        except ConfigError:
            raise
        except Exception as error:  # a plugin may raise anything
            raise ConfigError([f"plugin {module!r} cannot be used: {error!r}"]) from error

    @classmethod
    def with_plugins(cls, plugins: Iterable[str] = ()) -> "Registry":
        """A registry with the built-ins and `plugins`, which are names of modules."""
        registry = cls()
        for module in (*BUILT_IN, *plugins):
            registry.load(module)
        return registry
