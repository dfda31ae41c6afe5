"""What a log says was answered so far: all that whoever takes a stream over has to know of it."""

from typing import Any

from proxy.events import Event, FinishStep, Recovered, Start, Steered, Usage
from proxy.pipeline.said import Said
from proxy.record import written


class Transcript:
    """Adds up the events of a log, in order. `told`: what the reader steered, and what was said until then.

    `asked` is the position after which the present answer begins, `recovered` whether one has been mended before.
    """

    def __init__(self) -> None:
        self.begun: set[int] = set()
        self.said = Said()
        self.told: list[dict[str, Any]] = []
        self.asked = 0
        self.recovered = False
        self.facts: dict[str, Any] = {}  # what its first chunk said beside its choices
        self.size = 0  # bytes of all that was said
        self.usage: Usage | None = None
        self._running: set[int] = set()  # choices that have begun and not ended

    def is_complete(self, choices: int = 1) -> bool:
        """Whether each of so many choices has come to its end."""
        return len(self.begun) >= choices and not self._running

    def add(self, event: Event) -> None:
        self.size += len(written(event))
        if isinstance(event, Start):
            self.facts = self.facts or event.chunk or {}
            self.begun.add(event.index)
            self._running.add(event.index)
        elif isinstance(event, FinishStep):
            self._running.discard(event.index)
        elif isinstance(event, Usage):
            self.usage = event
        elif isinstance(event, Steered):
            text = self.said.text()
            self.told += [{"role": "assistant", "content": text}] if text else []
            self.told.append({"role": "user", "content": event.instruction})
            self.said, self.asked = Said(), event.seq
            self._running = set(self.begun)
        elif isinstance(event, Recovered):
            self.recovered = True
            self._running = set(self.begun)
            if event.how == "restarted":
                self.said = Said()
        else:
            self.said.add(event)
