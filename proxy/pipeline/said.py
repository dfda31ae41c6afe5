"""What a provider has said so far, as the assistant message that a conversation keeps."""

from typing import Any

from proxy.events import Event, TextDelta, ToolInputDelta, commits

_JOIN = 256  # pieces of text are joined now and then: a short string costs more than what it says


class Said:
    """Adds up the first choice of an answer; thoughts are not kept, for vendors do not want them back."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._more = False  # something else was said, or by another choice

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

    @property
    def is_text(self) -> bool:
        """Whether that is all of it: it can be gone on with, unlike a tool call, or an answer of several choices."""
        return bool(self.text().strip()) and not self._calls and not self._more

    def text(self) -> str:
        return "".join(self._pieces)

    def message(self) -> dict[str, Any] | None:
        """An assistant message; None if there is nothing to say."""
        text, calls = self.text(), [self._calls[slot] for slot in sorted(self._calls)]
        if not text and not calls:
            return None
        return {"role": "assistant", "content": text or None} | ({"tool_calls": calls} if calls else {})

    def _add_call(self, event: ToolInputDelta) -> None:
        call = self._calls.setdefault(
            event.slot, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = event.id or call["id"]
        call["function"]["name"] = event.name or call["function"]["name"]
        call["function"]["arguments"] += event.content
