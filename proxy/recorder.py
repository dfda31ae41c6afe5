"""Events on their way into a log: taken out of the chunks they came in, with all that was said there."""

from typing import Any

import msgspec

from proxy.chunk import THOUGHTS, TextAlone, beside, beside_call, choice_of, unnamed
from proxy.events import (
    Event,
    Finish,
    FinishStep,
    ReasoningDelta,
    SourceEnd,
    Start,
    TextDelta,
    ToolInputDelta,
    Usage,
    Vendor,
)

_OF_ALL_CHUNKS = frozenset({"id", "object", "created", "model", "choices", "obfuscation"})  # the last one pads
_OF_AN_END = ("index", "delta", "logprobs", "finish_reason")


class Recorder:
    """For the events of one source."""

    def __init__(self) -> None:
        self._facts: dict[str, Any] | None = None  # what every chunk says beside its choices, once the first has come
        self._lists: dict[str, Any] = {}  # said beside choices and not to be said again: Perplexity's sources
        self._raw: bytes | None = None
        self._told: set[int] = set()  # choices of that chunk of which an event has what else they say
        self._text_alone = TextAlone()

    def know(self, chunk: dict[str, Any]) -> None:
        """What the stream's first chunk said beside its choices: others need not say it again."""
        self._facts = {name: it for name, it in chunk.items() if isinstance(it, str | int | float)}
        self._text_alone.forget()

    def bare(self, event: Event) -> Event:
        """`event` without the chunk it came in. A chunk that only its vendor understands is kept as it is.

        Raises UnicodeError for a text that cannot be written down.
        """
        if type(event) is TextDelta and event.raw is not None and event.parts == 1:
            return self._text(event, event.raw)
        return self._taken_out(event)

    def _text(self, event: TextDelta, raw: bytes) -> Event:
        if not event.choice and self._text_alone.again(raw, event.index, event.content):
            return TextDelta(content=event.content, index=event.index, source=event.source)
        bare = self._taken_out(event)
        if bare.choice is bare.chunk is None:
            self._text_alone.learn(raw, event.index, event.content)
        return bare

    def _taken_out(self, event: Event) -> Event:
        raw = event.raw
        if isinstance(event, Finish | SourceEnd) and event.usage is not None:
            event = msgspec.structs.replace(event, usage=_counted(event.usage))
        if raw is None:
            return event
        if type(event) is Vendor and event.parts == 1:
            self._lists.clear()  # it may have said other ones
            self._text_alone.forget()
            return event
        chunk = None
        if raw is not self._raw:
            self._raw, self._told = raw, set()
            chunk = self._chunk(raw, first=type(event) is Start)
        if isinstance(event, ToolInputDelta):
            event = msgspec.structs.replace(event, extra=beside_call(raw, event.index, event.slot, event.id))
        choice = None if isinstance(event, Usage) else self._choice(event, raw)
        return msgspec.structs.replace(event, raw=None, parts=1, choice=choice, chunk=chunk)

    def _chunk(self, raw: bytes, *, first: bool) -> dict[str, Any] | None:
        fields = msgspec.json.decode(raw)
        said = {name: it for name, it in fields.items() if name not in _OF_ALL_CHUNKS and it is not None}
        if not fields.get("choices"):
            said.pop("usage", None)  # then it is an event
        if first and self._facts is None:
            self.know(said)
            return said or None
        known = {**self._lists, **(self._facts or {})}
        new = {name: it for name, it in said.items() if known.get(name) != it}
        if lists := {name: it for name, it in new.items() if isinstance(it, list)}:
            self._lists |= lists
            self._text_alone.forget()
        return new or None

    def _choice(self, event: Event, raw: bytes) -> dict[str, Any] | None:
        """What stands beside it. Of several events of one choice the text has it, for a mode takes it from there; the
        first one, where there is no text.
        """
        found: dict[str, Any] = {}
        if event.index not in self._told and (type(event) is TextDelta or not _has_text(raw, event.index)):
            self._told.add(event.index)
            found = beside(raw, event.index)
        if isinstance(event, Vendor):
            found["delta"] = unnamed(raw, event.index) or {}
        elif isinstance(event, FinishStep):
            found |= {name: it for name, it in choice_of(raw, event.index).items() if name not in _OF_AN_END}
        elif isinstance(event, ReasoningDelta) and (names := _names_of(event, raw)) != THOUGHTS[:1]:
            found["delta"] = found.get("delta", {}) | dict.fromkeys(names, "")
        return found or None


def _has_text(raw: bytes, index: int) -> bool:
    text = (choice_of(raw, index).get("delta") or {}).get("content")
    return isinstance(text, str) and bool(text)


def _names_of(thought: ReasoningDelta, raw: bytes) -> tuple[str, ...]:
    """Under which names it was said: those have to come with it, empty, where it is not the usual one."""
    delta = choice_of(raw, thought.index).get("delta") or {}
    return tuple(name for name in THOUGHTS if delta.get(name))


def _counted(usage: Usage) -> Usage:
    """The figures alone: it may have come as an event of its own."""
    return Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, details=usage.details)
