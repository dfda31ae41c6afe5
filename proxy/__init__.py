"""Weir, a unified LLM proxy: LiteLLM translates, Weir owns the life of the stream. README.md here is the floor plan.

The names of `__all__` are those a plugin or an embedding program may import; `proxy.testing` has doubles for its tests.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.adapter import BaseProviderAdapter, Messages, Tools
    from proxy.api.mount import Mount
    from proxy.embedding import ChatSession, Weir
    from proxy.errors import ConfigError, Kind, ProviderError, RequestError, StoreAway, WeirError
    from proxy.events import (
        ENDS,
        Abort,
        Error,
        Event,
        Finish,
        FinishStep,
        Quiet,
        ReasoningDelta,
        Recovered,
        SourceEnd,
        Start,
        Steered,
        TextDelta,
        ToolInput,
        ToolInputDelta,
        ToolOutput,
        Usage,
        Vendor,
    )
    from proxy.generator import MARKS, GeneratorConfig, GeneratorMode, StreamingGenerator
    from proxy.journey import Journey
    from proxy.merge import Merge
    from proxy.modes.buffered import Buffered
    from proxy.modes.chunked import Chunked
    from proxy.modes.interleaved import Interleaved
    from proxy.modes.priority import Priority
    from proxy.modes.standard import Standard
    from proxy.monitor import Monitor
    from proxy.provider import ProviderConfig, Retry, Timeouts
    from proxy.reading import Reading, StreamFormat
    from proxy.registry import Registry
    from proxy.settings import Settings

# Where the names above are, those that take little to import first.
_ROOMS = (
    *("errors", "events", "provider", "journey", "monitor", "merge", "generator", "adapter", "registry", "settings"),
    *("modes", "reading", "embedding", "api.mount"),
)

__all__ = [
    "ENDS",
    "MARKS",
    "Abort",
    "BaseProviderAdapter",
    "Buffered",
    "ChatSession",
    "Chunked",
    "ConfigError",
    "Error",
    "Event",
    "Finish",
    "FinishStep",
    "GeneratorConfig",
    "GeneratorMode",
    "Interleaved",
    "Journey",
    "Kind",
    "Merge",
    "Messages",
    "Monitor",
    "Mount",
    "Priority",
    "ProviderConfig",
    "ProviderError",
    "Quiet",
    "Reading",
    "ReasoningDelta",
    "Recovered",
    "Registry",
    "RequestError",
    "Retry",
    "Settings",
    "SourceEnd",
    "Standard",
    "Start",
    "Steered",
    "StoreAway",
    "StreamFormat",
    "StreamingGenerator",
    "TextDelta",
    "Timeouts",
    "ToolInput",
    "ToolInputDelta",
    "ToolOutput",
    "Tools",
    "Usage",
    "Vendor",
    "Weir",
    "WeirError",
]

if not TYPE_CHECKING:  # a type checker shall notice a name that is none

    def __getattr__(name: str) -> object:
        """Imports a name when it is asked for: all of them take a second, and `python -m proxy chat` needs none."""
        for room in _ROOMS if name in __all__ else ():
            module = import_module(f"proxy.{room}")
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
