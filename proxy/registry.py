"""Names -> classes. Built-ins and plugins come in by the same door: a module with `register(registry)`."""

import importlib
from collections.abc import Iterable

from proxy.adapter import BaseProviderAdapter
from proxy.errors import ConfigError

BUILT_IN = ("proxy.adapters",)


class Registry:
    """The kinds of provider this process knows."""

    def __init__(self) -> None:
        self._adapters: dict[str, type[BaseProviderAdapter]] = {}
        self._fallback: type[BaseProviderAdapter] | None = None

    def add_adapter(self, provider_type: str, adapter: type[BaseProviderAdapter]) -> None:
        """Makes `adapter` serve every provider of that type. Raises ConfigError if another one does already."""
        if self._adapters.setdefault(provider_type, adapter) is not adapter:
            raise ConfigError([f"provider_type {provider_type!r} is registered twice"])

    def serve_all_others(self, adapter: type[BaseProviderAdapter]) -> None:
        """Makes `adapter` serve every type that nobody registered; it refuses what it does not know."""
        self._fallback = adapter

    def adapter(self, provider_type: str) -> type[BaseProviderAdapter]:
        found = self._adapters.get(provider_type, self._fallback)
        if found is None:
            raise ConfigError([f"unknown provider_type {provider_type!r}; known: {', '.join(sorted(self._adapters))}"])
        return found

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
