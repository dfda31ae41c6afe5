"""The AI SDK's UI message stream: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol

It is read by every version of `ai` from 5.0.0 on. The first ones (5.0.0, 6.0.0, 7.0.0) refuse a part with a field they
do not know, and all of them one with a type they do not know: only what 5.0.0 has is written (`uiMessageChunkSchema`
there), unless the client says that it is newer. So why an answer ended is told in the message's metadata, with the
tokens, and not in the part `finish`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from proxy.chunk import unnamed
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
from proxy.wire import native
from proxy.wire.ui_lane import Lane, Part

DONE = b"data: [DONE]\n\n"
_json = msgspec.json.Encoder().encode
_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "function_call": "tool-calls",
    "content_filter": "content-filter",
}
_AFTER_TOOLS = (TextDelta, ReasoningDelta, ToolInputDelta, ToolInput)  # what a model says to what its tools said


class UIEncoder:
    """Writes one stream as one message.

    `message_id` is the message's id; an answer that goes on with the client's last message must have that one's (see
    `ui_messages.continued`), and `calls` are the ids of the calls that one has. `several`: the sources are told apart,
    by `providerMetadata.weir.source`. `version` is that of the SDK that reads it, at least: 7 means 7.0.70 or later,
    which can take back what a step has said.
    """

    content_headers: Mapping[str, str] = {"x-vercel-ai-ui-message-stream": "v1"}

    def __init__(self, message_id: str, *, several: bool = False, version: int = 5, calls: Iterable[str] = ()):
        self._id = message_id
        self._several = several
        self._takes_back = version >= 7
        self._one_step = True  # what is being answered has been said in the present step, and nothing else has
        self._begun = False
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._calls = set(calls)
        self._reason = ""  # why the first choice to end did

    def encode(self, event: Event) -> bytes:
        lane = self._lanes.get((event.source, event.index))
        if type(event) is TextDelta and lane is not None and lane.kind == "text":  # nearly all of them
            return _frame({"type": "text-delta", "id": lane.part_id, "delta": event.content})
        data = b"".join(map(_frame, self._parts(event)))
        return data + DONE if isinstance(event, Finish) else data

    def error(self, error: WeirError) -> bytes:
        return _frame({"type": "error", "errorText": error.message})

    def _parts(self, event: Event) -> list[Part]:
        match event:
            case Error():
                return [{"type": "error", "errorText": event.message}]
            case Abort():
                # The chat passes over `abort`, and would show what it has as the whole answer.
                return [{"type": "abort"}, {"type": "error", "errorText": f"the stream was stopped: {event.reason}"}]
            case Usage():
                return []  # the finish has it
            case Vendor() if not event.answer or (event.raw is None and event.choice is None):
                return []
            case Finish():
                return [*self._opening(event), *self._finished(event)]
            case SourceEnd():
                return [*self._opening(event), *self._source_ended(event)]
        return [*self._opening(event), *self._said(event)]

    def _opening(self, event: Event) -> list[Part]:
        """What opens the message, if nothing has yet."""
        if self._begun:
            return []
        self._begun = True
        start: Part = {"type": "start", "messageId": self._id}
        if isinstance(event, Start) and event.model and not self._several:
            start["messageMetadata"] = {"model": event.model}
        return [start, {"type": "start-step"}]

    def _said(self, event: Event) -> list[Part]:
        lane = self._lane(event.source, event.index)
        step = self._step() if lane.told and isinstance(event, _AFTER_TOOLS) else []
        lane.told = lane.told and not step
        self._one_step = self._one_step and not step
        match event:
            case TextDelta():
                return [*step, *lane.text(event.content)]
            case ReasoningDelta():
                return [*step, *lane.thought(event)]
            case ToolInputDelta():
                return [*step, *lane.tool_input(event)]
            case ToolInput():
                return [*step, *lane.tool_run(event)]
            case ToolOutput():
                return lane.tool_said(event)
            case FinishStep():
                self._reason = self._reason or event.reason
                return lane.complete()
            case Vendor():
                said = unnamed(event.raw, event.index) if event.raw is not None else (event.choice or {}).get("delta")
                return [_data(event, said) | {"transient": True}]
            case Steered(instruction=told):
                step = self._step()
                self._one_step = bool(step)
                return [*lane.broken(f"not run: {told}"), _data(event, {"instruction": told}), *step]
            case Recovered():
                return self._recovered(event)
        return []

    def _recovered(self, event: Recovered) -> list[Part]:
        """What goes on is the same text. A new answer is a new step, unless the SDK can take back the old one."""
        said = _data(event, {"how": event.how, "after": event.after, "reason": event.reason})
        if event.how == "continued":
            return [said]
        broken = [part for lane in self._lanes.values() for part in lane.broken(f"not run: {event.reason}")]
        if event.how == "failed":
            return [*broken, said]
        self._reason = ""
        for lane in self._lanes.values():
            lane.told = False
        if self._takes_back and self._one_step:
            return [*broken, {"type": "reset-step"}, said]
        return [*broken, said, *self._step()]

    def _step(self) -> list[Part]:
        """A model is asked again. The end of a step closes whatever is open, so where several talk there is but one."""
        return [{"type": "finish-step"}, {"type": "start-step"}] if len(self._lanes) == 1 else []

    def _lane(self, source: str, index: int) -> Lane:
        lane = self._lanes.get((source, index))
        if lane is None:
            label: dict[str, Any] = {"source": source} if self._several else {}
            label |= {"index": index} if index else {}
            name = f"{source}-{index}" if self._several else str(index)
            lane = self._lanes[source, index] = Lane(name, label, self._calls)
        return lane

    def _source_ended(self, end: SourceEnd) -> list[Part]:
        lanes = [lane for (source, _), lane in self._lanes.items() if source == end.source]
        failed = "" if end.reason == "finish" else end.message or end.reason
        parts = [part for lane in lanes for part in (lane.broken(failed) if failed else lane.complete())]
        said = {name: value for name, value in native.fields(end).items() if name not in ("type", "seq")}
        if end.usage:
            said["usage"] = _usage(end.usage)
        return [*parts, _data(end, said)]

    def _finished(self, event: Finish) -> list[Part]:
        parts = [part for lane in self._lanes.values() for part in lane.complete()]
        about: dict[str, Any] = {"finishReason": _REASONS.get(self._reason, "other")}
        if event.usage:
            about["usage"] = _usage(event.usage)
        return [*parts, {"type": "finish-step"}, {"type": "finish", "messageMetadata": about}]


def _frame(part: Part) -> bytes:
    return b"data: " + _json(part) + b"\n\n"


def _data(event: Event, data: Any) -> Part:
    return {"type": event.__struct_config__.tag, "data": data}


def _usage(usage: Usage) -> dict[str, int]:
    """As the AI SDK names them."""
    total = usage.input_tokens + usage.output_tokens
    return {"inputTokens": usage.input_tokens, "outputTokens": usage.output_tokens, "totalTokens": total}
