"""Weir's own format: each event as it is, as one server-sent event.

    data: {"type":"text-delta","content":"Hello","source":"openai_gpt35","seq":3}

`type` says what happened (see `events.py`), `source` who said it, `seq` its place in the stream, counted from 1. The
last one is a finish, an error or an abort: no [DONE] follows.
"""

from collections.abc import Mapping
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
    Recovered,
    SourceEnd,
    Start,
    Steered,
    TextDelta,
    ToolInput,
    ToolInputDelta,
    ToolOutput,
    Usage,
    Vendor,
)

_json = msgspec.json.Encoder().encode


class NativeEncoder:
    """Writes one stream as server-sent events."""

    content_headers: Mapping[str, str] = {}

    def encode(self, event: Event) -> bytes:
        return b"data: " + _json(fields(event)) + b"\n\n"

    def error(self, error: WeirError) -> bytes:
        return self.encode(Error(message=error.message, code=error.code))


def fields(event: Event) -> dict[str, Any]:
    """What `event` says: `type`, then what is its own, then whose it is. A vendor's JSON in it is `msgspec.Raw`."""
    if type(event) is TextDelta:  # nearly all of them
        said: dict[str, Any] = {"type": "text-delta", "content": event.content}
    else:
        said = {"type": event.__struct_config__.tag, **_own(event)}
    if event.index:
        said["index"] = event.index
    said["source"] = event.source
    said["seq"] = event.seq
    return said


def _own(event: Event) -> dict[str, Any]:
    match event:
        case ReasoningDelta():
            return {"content": event.content} | _given(extra=event.extra)
        case ToolInputDelta():
            return {"content": event.content, "slot": event.slot} | _given(id=event.id, name=event.name)
        case ToolInput():
            return {"id": event.id, "name": event.name, "input": event.input}
        case ToolOutput():
            return {"id": event.id} | ({"output": event.output} if event.error is None else {"error": event.error})
        case Start():
            return _given(id=event.id, model=event.model, created=event.created)
        case FinishStep():
            return {"reason": event.reason}
        case Usage():
            return usage_fields(event)
        case Vendor(raw=bytes(raw)):
            return {"data": msgspec.Raw(raw)}
        case Vendor(choice=dict(choice)):
            return {"data": {**(event.chunk or {}), **choice}}
        case Steered():
            return {"instruction": event.instruction}
        case Recovered():
            return {"how": event.how} | _given(after=event.after, reason=event.reason)
        case SourceEnd():
            used = usage_fields(event.usage) if event.usage else None
            return {"reason": event.reason} | _given(usage=used, message=event.message, code=event.code)
        case Finish():
            return {"usage": usage_fields(event.usage)} if event.usage else {}
        case Error():
            return {"error": event.message, "code": event.code}
        case Abort():
            return {"reason": event.reason}
    return {}


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def usage_fields(usage: Usage) -> dict[str, Any]:
    """Tokens in and out; `details` is the vendor's own account of them."""
    counted: dict[str, Any] = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    return counted | _given(details=usage.details)
