"""OpenAI's chat completions, written: https://platform.openai.com/docs/api-reference/chat/streaming

A chunk that came in on this wire leaves as it came, byte for byte. Events without bytes get a chunk built.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from proxy.chunk import beside, choice_of
from proxy.errors import WeirError
from proxy.events import (
    Abort,
    Error,
    Event,
    Finish,
    FinishStep,
    ReasoningDelta,
    Start,
    Steered,
    TextDelta,
    ToolInputDelta,
    Usage,
    Vendor,
)

DONE = b"data: [DONE]\n\n"
to_json = msgspec.json.Encoder().encode
_SAID_BEFORE = ("index", "delta", "logprobs")  # of a choice, when its end is left alone


class ChunkEncoder:
    """Writes one stream as server-sent events. `include_usage`: the client asked for the chunk that counts tokens."""

    content_headers: Mapping[str, str] = {}

    def __init__(self, request_id: str, model: str, *, include_usage: bool):
        self._id = f"chatcmpl-{request_id}"
        self._model = model
        self._created = int(time.time())
        self._include_usage = include_usage
        self._held: list[Event] = []  # events of one chunk, of which more are to come
        self._first: bytes | None = None  # the provider's first chunk
        self._facts: dict[str, Any] | None = None  # what it says there of the whole answer

    def encode(self, event: Event) -> bytes:
        """The bytes that `event` adds to the stream; often none."""
        if event.commits and event.raw is not None and event.parts == 1 and not self._held:
            return b"data: " + event.raw + b"\n\n"  # nearly all of them
        return self._frames(event)

    def error(self, error: WeirError) -> bytes:
        """An error inside a stream; OpenAI's SDKs raise it. No [DONE] follows: the stream is not complete."""
        return b"data: " + to_json(error.body()) + b"\n\n"

    def chunks(self, event: Event) -> list[bytes]:
        """The chunks that `event` completes, as JSON. Events of one chunk leave in it if they are still together."""
        found: list[bytes] = []
        if self._held and self._held[0].raw is not event.raw:
            found = [chunk for held in self._held for chunk in self._built(held)]
            self._held = []
        if isinstance(event, Start):
            self._begin(event)
        if event.raw is None:
            return found + self._built(event)
        self._held.append(event)
        if len(self._held) == event.parts:
            self._held = []
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
        self._id, self._model = start.id or self._id, start.model or self._model
        self._created = start.created or self._created
        if self._first is None and start.raw is not None:
            self._first, self._facts = start.raw, None

    def _built(self, event: Event) -> list[bytes]:
        """A chat.completion.chunk that says what `event` says; none if this wire has no word for it."""
        if isinstance(event, Usage):
            return [self._with([], usage=usage_fields(event))] if self._include_usage else []
        choice = _choice(event)
        if choice is None:
            return []
        marker = {"weir": {"type": "data-steer", "instruction": event.instruction}} if type(event) is Steered else {}
        return [self._with([{"index": event.index, **choice}], **marker)]

    def _with(self, choices: Iterable[Mapping[str, Any]], **more: Any) -> bytes:
        if self._facts is None:
            self._facts = _facts(self._first) if self._first else {}
        chunk = {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._model}
        return to_json({**self._facts, **chunk, "choices": list(choices), **more})


def _failure(event: Error | Abort) -> WeirError:
    if isinstance(event, Error):
        return WeirError(event.message, status=502, code=event.code)
    return WeirError(f"the stream was stopped: {event.reason}", status=503, code="stopped")


def _facts(chunk: bytes) -> dict[str, Any]:
    """What every chunk of an answer repeats, such as system_fingerprint; not what only pads or belongs to one."""
    fields = msgspec.json.decode(chunk).items()
    return {name: value for name, value in fields if isinstance(value, str | int | float) and name != "obfuscation"}


def _choice(event: Event) -> dict[str, Any] | None:
    """The choice of a chunk that says what `event` says, but for its index."""
    delta = _delta(event)
    if delta is None:
        return None
    reason, more = None, {}
    if isinstance(event, FinishStep):
        reason = event.reason
        choice = choice_of(event.raw, event.index) if event.raw is not None else {}
        more = {name: value for name, value in choice.items() if name not in _SAID_BEFORE}
    elif isinstance(event, TextDelta):
        more = event.extra or (beside(event.raw, event.index) if event.raw is not None else {})
        delta = {**more.get("delta", {}), **delta}
    return {**more, "delta": delta, "finish_reason": reason}


def _delta(event: Event) -> dict[str, Any] | None:
    match event:
        case Start():
            return {"role": "assistant", "content": ""}
        case TextDelta():
            return {"content": event.content}
        case ReasoningDelta():
            return {"reasoning_content": event.content, **(event.extra or {})}
        case ToolInputDelta():
            call: dict[str, Any] = {"index": event.slot, "function": {"arguments": event.content}}
            if event.id is not None:
                call |= {"id": event.id, "type": "function"}
            if event.name is not None:
                call["function"]["name"] = event.name
            return {"tool_calls": [call]}
        case FinishStep() | Steered():
            return {}
        case Vendor(raw=bytes(raw)):
            return unnamed(raw, event.index)
    return None


def unnamed(raw: bytes, index: int) -> dict[str, Any] | None:
    """What of a choice's delta has no event of its own, such as a refusal; None if the chunk has no such choice."""
    choice = choice_of(raw, index)
    named = ("role", "reasoning_content", "reasoning", "tool_calls")
    delta = {name: value for name, value in (choice.get("delta") or {}).items() if name not in named}
    if isinstance(delta.get("content"), str):
        del delta["content"]
    return delta if choice else None


def usage_fields(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object."""
    counted = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    return {**counted, **(usage.details or {})}
