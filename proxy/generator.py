"""The one seam to modes: how a stream is shaped on its way to the reader. A new mode is one small class."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from proxy.events import ENDS, Event, FinishStep, Recovered, SourceEnd, Start, Steered, Usage
from proxy.merge import Merge

# What overtakes nothing of its own source, and is overtaken by nothing of it, in any mode.
MARKS = ENDS | {Start, FinishStep, Recovered, SourceEnd, Steered, Usage}

GeneratorConfig = dict[str, Any]  # the options of a mode, by name: GeneratorConfig(buffer_size=200)


class GeneratorMode(StrEnum):
    """The built-in modes. A plugin's mode goes by the name it registered."""

    STANDARD = "standard"
    BUFFERED = "buffered"
    CHUNKED = "chunked"
    INTERLEAVED = "interleaved"
    PRIORITY = "priority"


class StreamingGenerator(BaseModel, ABC):
    """A mode. Its fields are its options, checked when a request names it; one instance serves one stream.

    The rules (`proxy.testing.check_mode` holds a mode to them): text may be regrouped, within one choice of one
    source, and everything else passes as it came, the same object. Nothing is lost, invented or reordered within a
    source: an event that is not text lets go of the text held before it. The stream's end comes once, and last. What
    is held has a bound, so that a source is held back where the reader is slow.
    """

    # Events of one source may overtake each other if they are of different kinds, and no MARKS; sources always may.
    reorders: ClassVar[bool] = False

    model_config = ConfigDict(extra="forbid", frozen=True)

    @abstractmethod
    def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        """Reads `merge` and yields what the reader is to get, the end included. Must not wait for anything else long.

        Where time matters, `merge.wake_at(...)` asks for a Quiet among the events, which is never passed on, and
        `merge.until(...)` lets time pass; both go by `merge.time()`.
        """
