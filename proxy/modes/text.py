"""Text that a mode holds back: in runs, one for each choice of each source, so that nothing gets mixed up."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from proxy.chunk import add_choice, beside
from proxy.events import ENDS, Event, TextDelta


class Run:
    """Text without anything between; `text` is what is held of it.

    What stood beside the text in the provider's chunks (log probabilities, say) leaves with the next piece of it.
    """

    def __init__(self, source: str, index: int):
        self.source = source
        self.index = index
        self.text = ""
        self._beside: dict[str, Any] = {}

    def __bool__(self) -> bool:
        """Something is held."""
        return bool(self.text or self._beside)

    def add(self, event: TextDelta) -> None:
        self.text += event.content
        if event.choice is None and event.raw is not None:
            add_choice(self._beside, beside(event.raw, event.index))
        elif event.choice:
            add_choice(self._beside, copy.deepcopy(event.choice))

    def piece(self, content: str) -> TextDelta:
        """The next piece for the reader. It is up to the caller to take `content` off `text`."""
        choice, self._beside = self._beside or None, {}
        return TextDelta(content=content, choice=choice, index=self.index, source=self.source)

    def rest(self) -> Iterator[TextDelta]:
        """All that is held, in as many pieces as it takes."""
        if self:
            content, self.text = self.text, ""
            yield self.piece(content)


AnyRun = TypeVar("AnyRun", bound=Run)


class Held(Generic[AnyRun]):
    """All the text that a stream holds back. `new_run` makes a run, given its source and its choice."""

    def __init__(self, new_run: Callable[[str, int], AnyRun]):
        self._new_run = new_run
        self._runs: dict[tuple[str, int], AnyRun] = {}

    def __iter__(self) -> Iterator[AnyRun]:
        return iter([*self._runs.values()])

    def run_of(self, event: TextDelta) -> AnyRun:
        """The run that `event` is a part of."""
        place = (event.source, event.index)
        run = self._runs.get(place)
        if run is None:
            run = self._runs[place] = self._new_run(*place)
        return run

    def let_go(self, event: Event) -> Iterator[TextDelta]:
        """What must leave before `event`, which is not text: what its source said before; at an end, everything."""
        for place in [place for place in self._runs if place[0] == event.source or type(event) in ENDS]:
            yield from self._runs.pop(place).rest()
