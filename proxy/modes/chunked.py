"""Text is cut anew, into pieces of one size."""

from collections.abc import AsyncGenerator
from typing import Literal

from pydantic import Field

from proxy.events import Event, Quiet, TextDelta
from proxy.generator import StreamingGenerator
from proxy.merge import Merge
from proxy.modes.text import Held, Run
from proxy.modes.units import Characters, Lines, Sentences, Unit, Words, clusters

MOST_HELD = 64 * 1024  # characters; a piece that would be longer is cut there
UNITS = {"characters": Characters, "words": Words, "sentences": Sentences, "lines": Lines}


class Chunked(StreamingGenerator):
    """Each piece has `size` units. Only the last one before something else than text, or the end, may have fewer."""

    unit: Literal["characters", "words", "sentences", "lines"] = "words"
    size: int = Field(default=1, ge=1, le=65536)

    async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        held = Held(lambda source, index: _Pieces(source, index, UNITS[self.unit](), self.size))
        async for event in merge:
            if isinstance(event, TextDelta):
                run = held.run_of(event)
                run.add(event)
                for piece in run.cut():
                    yield piece
            elif not isinstance(event, Quiet):
                for piece in held.let_go(event):
                    yield piece
                yield event


class _Pieces(Run):
    def __init__(self, source: str, index: int, unit: Unit, size: int):
        super().__init__(source, index)
        self._unit = unit
        self._size = size
        self._units = 0  # complete ones in what is held
        self._seen = 0  # characters of it that are done with
        self._told = False  # the unit has been told what comes next

    def cut(self) -> list[TextDelta]:
        """The pieces that are certain, whatever comes."""
        text, start, pieces = self.text, 0, []
        for end in self._ends(text):
            pieces.append(self.piece(text[start:end]))
            start = end
        self.text = text[start:]
        self._seen -= start
        return pieces

    def _ends(self, text: str) -> list[int]:
        """Where in `text` pieces end."""
        unit, start, ends = self._unit, 0, []
        whole, growing = clusters(text, self._seen, runs=unit.runs and len(text) < MOST_HELD)
        for cluster in whole:
            if not self._told and unit.ends_before(cluster) and self._completes():
                ends.append(start := self._seen)
            self._told = False
            self._seen += len(cluster)
            if (unit.ends_after(cluster) and self._completes()) or self._seen - start >= MOST_HELD:
                self._units = 0
                ends.append(start := self._seen)
        if growing and not self._told and not growing.isspace():
            self._told = True
            if unit.ends_before(growing) and self._completes():
                ends.append(start := self._seen)
        while len(text) - start >= MOST_HELD:  # before a cluster that still grows; inside it, if it never ends
            self._units = 0
            if self._seen == start:
                self._seen, self._told = len(text), False
            ends.append(start := self._seen)
        return ends

    def _completes(self) -> bool:
        """Counts a unit that has ended, and says whether it completes a piece."""
        self._units += 1
        if self._units < self._size:
            return False
        self._units = 0
        return True
