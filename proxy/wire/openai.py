"""OpenAI's chat completions, written: https://platform.openai.com/docs/api-reference/chat/streaming

A chunk that came in on this wire leaves as it came, byte for byte. Events without bytes get a chunk built.
"""

import time
from typing import Any

import msgspec

from proxy.errors import WeirError
from proxy.events import (
    Abort,
    Error,
    Event,
    Finish,
    FinishStep,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolInputDelta,
    Usage,
    Vendor,
)

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
_json = msgspec.json.Encoder().encode


class ChunkEncoder:
    """Writes one stream as server-sent events. `include_usage`: the client asked for the chunk that counts tokens."""

    def __init__(self, request_id: str, model: str, *, include_usage: bool):
        self._id = f"chatcmpl-{request_id}"
        self._model = model
        self._created = int(time.time())
        self._include_usage = include_usage
        self._held: list[Event] = []  # events of one chunk, of which more are to come

    def encode(self, event: Event) -> bytes:
        """The bytes that `event` adds to the stream; often none."""
        if event.commits and event.raw is not None and event.parts == 1 and not self._held:
            return b"data: " + event.raw + b"\n\n"  # nearly all of them
        data = b"".join(b"data: " + chunk + b"\n\n" for chunk in self.chunks(event))
        if isinstance(event, Finish):
            return data + DONE
        if isinstance(event, Error | Abort):
            return data + encode_error(_failure(event))
        return data

    def chunks(self, event: Event) -> list[bytes]:
        """The chunks that `event` completes, as JSON. Events of one chunk leave in it if they are still together."""
        found: list[bytes] = []
        if self._held and self._held[0].raw is not event.raw:
            found = [chunk for held in self._held for chunk in self._built(held)]
            self._held = []
        if isinstance(event, Start):
            self._id, self._model = event.id or self._id, event.model or self._model
            self._created = event.created or self._created
        if event.raw is None:
            return found + self._built(event)
        self._held.append(event)
        if len(self._held) == event.parts:
            self._held = []
            if self._include_usage or type(event) is not Usage:
                found.append(event.raw)
        return found

    def _built(self, event: Event) -> list[bytes]:
        """A chat.completion.chunk that says what `event` says; none if this wire has no word for it."""
        chunk = {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._model}
        if isinstance(event, Usage):
            return [_json({**chunk, "choices": [], "usage": usage_fields(event)})] if self._include_usage else []
        delta = _delta(event)
        if delta is None:
            return []
        reason = event.reason if isinstance(event, FinishStep) else None
        return [_json({**chunk, "choices": [{"index": event.index, "delta": delta, "finish_reason": reason}]})]


def encode_error(error: WeirError) -> bytes:
    """An error inside a stream; OpenAI's SDKs raise it. No [DONE] follows: the stream is not complete."""
    return b"data: " + _json(error.body()) + b"\n\n"


def _failure(event: Error | Abort) -> WeirError:
    if isinstance(event, Error):
        return WeirError(event.message, status=502, code=event.code)
    return WeirError(f"the stream was stopped: {event.reason}", status=503, code="stopped")


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
        case FinishStep():
            return {}
        case Vendor(raw=bytes(raw)):
            return _unnamed(raw, event.index)
    return None


def _unnamed(raw: bytes, index: int) -> dict[str, Any] | None:
    """What of a chunk's choice has no event of its own, such as a refusal."""
    named = ("role", "reasoning_content", "reasoning", "tool_calls")
    for choice in msgspec.json.decode(raw).get("choices") or ():
        if choice.get("index", 0) == index:
            delta = {name: value for name, value in (choice.get("delta") or {}).items() if name not in named}
            if isinstance(delta.get("content"), str):
                del delta["content"]
            return delta
    return None


def usage_fields(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object."""
    counted = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    return {**counted, **(usage.details or {})}
