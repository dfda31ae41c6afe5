"""The built-in modes. They come in by the same door as a plugin's."""

from proxy.generator import GeneratorMode
from proxy.modes.buffered import Buffered
from proxy.modes.chunked import Chunked
from proxy.modes.interleaved import Interleaved
from proxy.modes.priority import Priority
from proxy.modes.standard import Standard
from proxy.registry import Registry


def register(registry: Registry) -> None:
    registry.add_mode(GeneratorMode.STANDARD, Standard)
    registry.add_mode(GeneratorMode.BUFFERED, Buffered)
    registry.add_mode(GeneratorMode.CHUNKED, Chunked)
    registry.add_mode(GeneratorMode.INTERLEAVED, Interleaved)
    registry.add_mode(GeneratorMode.PRIORITY, Priority)
