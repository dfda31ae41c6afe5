"""What led to an answer's tool calls, as the vendor that thought so wants it back with their results.

DeepSeek, Anthropic and Gemini refuse the results without it. Thoughts that led to no call nobody wants back.
"""

import copy
from typing import Any

from proxy.chunk import THOUGHTS, add_delta, beside_call, choice_of
from proxy.events import Event, ReasoningDelta, ToolInputDelta

_JOIN = 256  # pieces of a thought are joined now and then: each time would take time with the square of its length
_NAMES = (*THOUGHTS, "reasoning_details")


class Thoughts:
    """Those of the first choice of one answer."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[str]] = {}
        self._more: dict[str, Any] = {}  # what is no text, such as signatures
        self._raw: bytes | None = None  # the chunk that was read last: it may have come as several events

    def add(self, event: Event) -> None:
        """Any event but text."""
        if event.raw is None:
            if isinstance(event, ReasoningDelta):
                self._think({THOUGHTS[0]: event.content, **copy.deepcopy(event.extra or {})})
        elif event.raw is not self._raw:
            self._raw = event.raw
            delta = choice_of(event.raw, 0).get("delta") or {}
            self._think({name: delta[name] for name in _NAMES if delta.get(name)})

    def fields(self) -> dict[str, Any]:
        """They stand beside the calls in the assistant's message."""
        return {name: "".join(pieces) for name, pieces in self._pieces.items()} | self._more

    def _think(self, delta: dict[str, Any]) -> None:
        for name, said in delta.items():
            if not isinstance(said, str):
                add_delta(self._more, {name: said})
            elif said:
                pieces = self._pieces.setdefault(name, [])
                pieces.append(said)
                if len(pieces) >= _JOIN:
                    pieces[:] = ["".join(pieces)]


def signature_of(event: ToolInputDelta) -> dict[str, Any]:
    """What stands beside the first piece of a call, to come back with it."""
    more = event.extra if event.raw is None else beside_call(event.raw, event.index, event.slot, event.id)
    return copy.deepcopy(more or {})
