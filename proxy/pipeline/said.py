"""What a provider has said so far, as the assistant message that a conversation keeps."""

from typing import Any

from proxy.chunk import add_delta
from proxy.events import Event, TextDelta, ToolInputDelta, commits
from proxy.pipeline.thoughts import Thoughts, signature_of
from proxy.session.messages import SAID_BY

_JOIN = 256  # pieces of text are joined now and then: a short string costs more than what it says


class Said:
    """Adds up the first choice of an answer; with `thoughts`, also those that led to its tool calls."""

    def __init__(self, thoughts: Thoughts | None = None) -> None:
        self._pieces: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._more = False  # something else was said, or by another choice
        self._thoughts = thoughts
        self._signed = False  # there is more in a call than OpenAI has

    def add(self, event: Event) -> None:
        kind = type(event)
        if kind is TextDelta and not event.index:
            self._pieces.append(event.content)  # type: ignore[attr-defined]
            if len(self._pieces) >= _JOIN:
                self._pieces = ["".join(self._pieces)]
        elif isinstance(event, ToolInputDelta) and not event.index:
            self._add_call(event)
        elif commits(event):
            self._more = True
        if self._thoughts is not None and kind is not TextDelta and not event.index:
            self._thoughts.add(event)

    @property
    def is_text(self) -> bool:
        """Whether that is all of it: it can be gone on with, unlike a tool call, or an answer of several choices."""
        return bool(self.text().strip()) and not self._calls and not self._more

    def text(self) -> str:
        return "".join(self._pieces)

    def message(self, said_by: str = "") -> dict[str, Any] | None:
        """An assistant message; None if there is nothing to say. `said_by`: the id of the provider, for `told_to`."""
        text, calls = self.text(), [self._calls[slot] for slot in sorted(self._calls)]
        if not text and not calls:
            return None
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if not calls:
            return message
        beside = self._thoughts.fields() if self._thoughts else {}
        return {**message, "tool_calls": calls, **beside} | ({SAID_BY: said_by} if beside or self._signed else {})

    def _add_call(self, event: ToolInputDelta) -> None:
        call = self._calls.setdefault(
            event.slot, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = event.id or call["id"]
        call["function"]["name"] = event.name or call["function"]["name"]
        call["function"]["arguments"] += event.content
        if self._thoughts is not None and event.id and (signature := signature_of(event)):
            self._signed = True
            add_delta(call, signature)
