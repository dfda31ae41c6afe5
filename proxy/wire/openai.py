"""OpenAI's chat completions, written: https://platform.openai.com/docs/api-reference/chat/streaming

A chunk that came in on this wire leaves as it came, byte for byte. Events without bytes get a chunk built.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from proxy.chunk import THOUGHTS, beside, call_in, choice_of, to_json, unnamed
from proxy.errors import WeirError
from proxy.events import (
    Abort,
    Error,
    Event,
    Finish,
    FinishStep,
    ReasoningDelta,
    Recovered,
    Start,
    Steered,
    TextDelta,
    ToolInputDelta,
    Usage,
    Vendor,
)
from proxy.heading import Heading

DONE = b"data: [DONE]\n\n"
_HERE = "\0text\0"
_SAID_BEFORE = ("index", "delta", "logprobs")  # of a choice, when its end is left alone


class ChunkEncoder:
    """Writes one stream as server-sent events."""

    content_headers: Mapping[str, str] = {}

    def __init__(self, heading: Heading):
        self._id = f"chatcmpl-{heading.request_id}"
        self._model = heading.model
        self._created = heading.created
        self._include_usage = heading.include_usage
        self.held: list[Event] = []  # events of one chunk, of which more are to come
        self._first: bytes | None = None  # the provider's first chunk
        self._facts: dict[str, Any] | None = None  # what it says there of the whole answer
        self._around_text: dict[int, tuple[bytes, bytes]] = {}  # choice -> what comes before and after its text

    def encode(self, event: Event) -> bytes:
        """The bytes that `event` adds to the stream; often none."""
        if event.commits and event.raw is not None and event.parts == 1 and not self.held:
            return b"data: " + event.raw + b"\n\n"  # nearly all of them
        if type(event) is TextDelta and not self.held and is_bare(event):  # of a mode, or of another wire
            return b"data: " + self._text(event) + b"\n\n"
        return self._frames(event)

    def error(self, error: WeirError) -> bytes:
        """An error inside a stream; OpenAI's SDKs raise it. No [DONE] follows: the stream is not complete."""
        return b"data: " + to_json(error.body()) + b"\n\n"

    def chunks(self, event: Event) -> list[bytes]:
        """The chunks that `event` completes, as JSON. Events of one chunk leave in it if they are still together."""
        found: list[bytes] = []
        if self.held and self.held[0].raw is not event.raw:
            found = [chunk for held in self.held for chunk in self._built(held)]
            self.held = []
        if isinstance(event, Start):
            self._begin(event)
        if event.raw is None:
            return found + self._built(event)
        self.held.append(event)
        if len(self.held) == event.parts:
            self.held = []
            if self._include_usage or type(event) is not Usage:
                found.append(event.raw)
        return found

    def _frames(self, event: Event) -> bytes:
        data = b"".join(b"data: " + chunk + b"\n\n" for chunk in self.chunks(event))
        if isinstance(event, Finish):
            return data + DONE
        if isinstance(event, Error | Abort):
            return data + self.error(_failure(event))
        return data

    def _begin(self, start: Start) -> None:
        self._around_text.clear()
        self._id, self._model = start.id or self._id, start.model or self._model
        self._created = start.created or self._created
        if self._first is None and start.raw is not None:
            self._first, self._facts = start.raw, None
        elif start.raw is None and self._facts is None and self._first is None:
            self._facts = _scalars(start.chunk or {})

    def _built(self, event: Event) -> list[bytes]:
        """A chat.completion.chunk that says what `event` says; none if this wire has no word for it."""
        if isinstance(event, Usage):
            more = event.chunk or {}
            return [self._with([], usage=usage_fields(event), **more)] if self._include_usage else []
        if type(event) is TextDelta and is_bare(event):
            return [self._text(event)]
        choice = _choice(event)
        if choice is None:
            return []
        more = {**(event.chunk or {}), **self._told_beside(event), **_marker(event)}
        return [self._with([{"index": event.index, **choice}], **more)]

    def _told_beside(self, event: Event) -> dict[str, Any]:
        """The tokens that were told beside the end of a choice, in a chunk that a mode took apart: some vendors tell
        them nowhere else.
        """
        if not self._include_usage or type(event) is not FinishStep or event.raw is None:
            return {}
        usage = msgspec.json.decode(event.raw).get("usage")
        return {"usage": usage} if usage else {}

    def _text(self, event: TextDelta) -> bytes:
        """A chunk of text and nothing else: what stands around the text is always the same, and written once."""
        if event.index not in self._around_text:
            chunk = self._with([{"index": event.index, "delta": {"content": _HERE}, "finish_reason": None}])
            before, _, after = chunk.rpartition(to_json(_HERE))
            self._around_text[event.index] = before, after
        before, after = self._around_text[event.index]
        return before + to_json(event.content) + after

    def _with(self, choices: Iterable[Mapping[str, Any]], **more: Any) -> bytes:
        if self._facts is None and self._first is not None:
            self._facts = _scalars(msgspec.json.decode(self._first))
        chunk = {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._model}
        return to_json({**(self._facts or {}), **chunk, "choices": list(choices), **more})


def is_bare(event: TextDelta) -> bool:
    """There is nothing to be written but its text."""
    return not (event.raw or event.choice or event.chunk)


def _failure(event: Error | Abort) -> WeirError:
    if isinstance(event, Error):
        return WeirError(event.message, status=502, code=event.code)
    return WeirError(f"the stream was stopped: {event.reason}", status=503, code="stopped")


def _scalars(fields: dict[str, Any]) -> dict[str, Any]:
    """What every chunk of an answer repeats, such as system_fingerprint; not what only pads or belongs to one."""
    return {name: it for name, it in fields.items() if isinstance(it, str | int | float) and name != "obfuscation"}


def _marker(event: Event) -> dict[str, Any]:
    """What has no place on this wire, as one more field that every SDK passes over."""
    if isinstance(event, Steered):
        return {"weir": {"type": "data-steer", "instruction": event.instruction}}
    if isinstance(event, Recovered):
        told = {"how": event.how, "after": event.after, "reason": event.reason}
        return {"weir": {"type": "data-recovery", **told}}
    return {}


def _choice(event: Event) -> dict[str, Any] | None:
    """The choice of a chunk that says what `event` says, but for its index."""
    delta = _delta(event)
    if delta is None:
        return None
    more = _beside(event)
    reason = event.reason if isinstance(event, FinishStep) else None
    return {**more, "delta": {**more.get("delta", {}), **delta}, "finish_reason": reason}


def _beside(event: Event) -> dict[str, Any]:
    """What else stood in the choice that `event` came in."""
    if event.choice is not None:
        return event.choice
    if isinstance(event, FinishStep) and event.raw is not None:
        choice = choice_of(event.raw, event.index)
        return {name: value for name, value in choice.items() if name not in _SAID_BEFORE}
    if isinstance(event, TextDelta) and event.raw is not None:
        return beside(event.raw, event.index)
    return {}


def _delta(event: Event) -> dict[str, Any] | None:
    match event:
        case Start():
            return {"role": "assistant", "content": ""}
        case TextDelta():
            return {"content": event.content}
        case ReasoningDelta():
            said = _beside(event).get("delta", {})
            names = [name for name in THOUGHTS if name in said] or [THOUGHTS[0]]
            return {**dict.fromkeys(names, event.content), **(event.extra or {})}
        case ToolInputDelta():
            return {"tool_calls": [_call(event)]}
        case FinishStep() | Steered() | Recovered():
            return {}
        case Vendor(raw=bytes(raw)):
            return unnamed(raw, event.index)
        case Vendor(choice=dict()):
            return {}
    return None


def _call(event: ToolInputDelta) -> dict[str, Any]:
    more = event.extra or {}
    call: dict[str, Any] = {"index": event.slot, **more}
    if event.raw is not None:  # the pieces that leave as they came have the number that the vendor gave
        given = call_in(event.raw, event.index, event.slot, event.id).get("index")
        call["index"] = event.slot if given is None else given
    if event.id is not None:
        call = {**call, "id": event.id, "type": more.get("type", "function")}
    if event.content or event.name or not more:
        call["function"] = {**more.get("function", {}), "arguments": event.content}
    if event.name is not None:
        call["function"]["name"] = event.name
    return call


def usage_fields(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object."""
    counted = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    return {**counted, **(usage.details or {})}
