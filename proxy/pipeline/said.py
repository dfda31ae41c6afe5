"""What a provider has said so far, as the assistant message that a conversation keeps."""

import copy
from typing import Any

from proxy.chunk import add_delta, choice_of
from proxy.events import Event, ReasoningDelta, TextDelta, ToolInputDelta, commits
from proxy.recorder import beside_call
from proxy.session.messages import SAID_BY

_JOIN = 256  # pieces of text are joined now and then: a short string costs more than what it says
_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details")  # of a delta, as vendors name them


class Said:
    """Adds up the first choice of an answer; with `thoughts`, also what led to its tool calls, and their signatures.

    Vendors that think want those back with the results, or refuse the request: DeepSeek, Anthropic, Gemini. Thoughts
    that led to no call nobody wants back.
    """

    def __init__(self, *, thoughts: bool = False) -> None:
        self._pieces: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._more = False  # something else was said, or by another choice
        self._thoughts: dict[str, Any] | None = {} if thoughts else None
        self._signed = False  # there is more in a call than OpenAI has
        self._raw: bytes | None = None  # the chunk whose thoughts were kept last

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
            self._add_thought(event, self._thoughts)

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
        if calls:
            message["tool_calls"] = calls
        if calls and (self._thoughts or self._signed):
            message |= {**(self._thoughts or {}), SAID_BY: said_by}
        return message

    def _add_call(self, event: ToolInputDelta) -> None:
        call = self._calls.setdefault(
            event.slot, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = event.id or call["id"]
        call["function"]["name"] = event.name or call["function"]["name"]
        call["function"]["arguments"] += event.content
        if self._thoughts is not None and event.id:  # the first piece has what else there is
            more = event.extra if event.raw is None else beside_call(event, event.raw)
            if more:
                self._signed = True
                add_delta(call, copy.deepcopy(more))

    def _add_thought(self, event: Event, thoughts: dict[str, Any]) -> None:
        if event.raw is None:
            if isinstance(event, ReasoningDelta):
                add_delta(thoughts, {_THOUGHTS[0]: event.content, **copy.deepcopy(event.extra or {})})
        elif event.raw is not self._raw:
            self._raw = event.raw
            delta = choice_of(event.raw, 0).get("delta") or {}
            add_delta(thoughts, {name: delta[name] for name in _THOUGHTS if delta.get(name)})
