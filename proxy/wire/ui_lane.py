"""One choice of one source, as parts of an AI SDK message: at most one text or thought is open at a time."""

from typing import Any

import msgspec

from proxy.chunk import add_delta
from proxy.events import ReasoningDelta, ToolInput, ToolInputDelta, ToolOutput

Part = dict[str, Any]


class Lane:
    """What is open in it. Each method gives the parts to write, in order; `part_id` is that of the open one.

    `label` says in the message whose it is, where there are several; `calls` are the ids of the message's tool calls.
    """

    def __init__(self, name: str, label: dict[str, Any], calls: set[str]):
        self.kind = ""  # text or reasoning, while one is open
        self.part_id = ""
        self.told = False  # an agent's tools have all said what they had to say
        self._name = name
        self._label = label
        self._calls = calls
        self._parts = 0
        self._extra: dict[str, Any] = {}  # what the vendor wants back with the thought
        self._tools: dict[int, _Tool] = {}
        self._run: dict[str, str] = {}  # tools that an agent ran by itself: its id for the call -> ours

    def text(self, content: str) -> list[Part]:
        return [*self._opened("text"), {"type": "text-delta", "id": self.part_id, "delta": content}]

    def thought(self, event: ReasoningDelta) -> list[Part]:
        parts = self._opened("reasoning")
        add_delta(self._extra, event.extra or {})
        if event.content:
            parts.append({"type": "reasoning-delta", "id": self.part_id, "delta": event.content})
        return parts

    def tool_input(self, event: ToolInputDelta) -> list[Part]:
        """A call that the client is to run: its name is one of the client's own tools."""
        parts = self.closed()
        tool = self._tools.get(event.slot)
        if tool is None:
            tool = self._tools[event.slot] = _Tool(self._call_id(event.id), event.name or "unknown")
            parts.append({"type": "tool-input-start", "toolCallId": tool.id, "toolName": tool.name})
        if event.content:
            tool.pieces.append(event.content)
            parts.append({"type": "tool-input-delta", "toolCallId": tool.id, "inputTextDelta": event.content})
        return parts

    def tool_run(self, event: ToolInput) -> list[Part]:
        """A call that an agent runs by itself: a tool that the client need not know, and must not run."""
        call = self._run[event.id] = self._call_id(event.id)
        return [*self.closed(), self._available(call, event.name, event.input) | _RUN]

    def tool_said(self, event: ToolOutput) -> list[Part]:
        """Nothing for a call that was never told: the SDK would take the whole answer for broken."""
        call = self._run.pop(event.id, None)
        if call is None:
            return []
        self.told = not self._run
        if event.error is not None:
            return [*self.closed(), {**_failed(call, event.error), **_RUN}]
        return [*self.closed(), {"type": "tool-output-available", "toolCallId": call, "output": event.output, **_RUN}]

    def complete(self) -> list[Part]:
        """The choice has ended: what is open is closed, and its tools may be run."""
        parts = self.closed()
        for tool in self._tools.values():
            try:
                parts.append(self._available(tool.id, tool.name, tool.input()))
            except (msgspec.DecodeError, RecursionError) as error:
                parts.append(_failed(tool.id, f"the arguments are not valid JSON: {error}"))
        self._tools = {}
        return parts

    def broken(self, why: str) -> list[Part]:
        """What was begun goes no further: what was said stands, and no tool is run."""
        parts = self.closed() + [_failed(tool.id, why) for tool in self._tools.values()]
        self._tools = {}
        return parts

    def closed(self) -> list[Part]:
        """Ends the open text or thought."""
        if not self.kind:
            return []
        metadata = self._metadata(extra=self._extra) if self._extra else {}
        ended = {"type": f"{self.kind}-end", "id": self.part_id, **metadata}
        self.kind, self._extra = "", {}
        return [ended]

    def _opened(self, kind: str) -> list[Part]:
        if self.kind == kind:
            return []
        parts = self.closed()
        self.kind, self.part_id = kind, f"{self._name}-{self._parts}"
        self._parts += 1
        return [*parts, {"type": f"{kind}-start", "id": self.part_id, **self._metadata()}]

    def _available(self, call: str, name: str, given: Any) -> Part:
        fields = {"type": "tool-input-available", "toolCallId": call, "toolName": name, "input": given}
        return fields | self._metadata()

    def _metadata(self, **more: Any) -> Part:
        said = {**self._label, **more}
        return {"providerMetadata": {"weir": said}} if said else {}

    def _call_id(self, given: str | None) -> str:
        """The vendor's id, unless it has been used in this message already, or there is none."""
        call = given or f"call-{self._name}-{len(self._calls)}"
        if call in self._calls:
            call = f"{call}-{self._name}-{len(self._calls)}"
        self._calls.add(call)
        return call


_RUN = {"providerExecuted": True, "dynamic": True}


def _failed(call: str, why: str) -> Part:
    """All versions take it for a call whose input is no good, too; tool-input-error is unknown to the first ones."""
    return {"type": "tool-output-error", "toolCallId": call, "errorText": why}


class _Tool:
    def __init__(self, id: str, name: str):
        self.id = id
        self.name = name
        self.pieces: list[str] = []

    def input(self) -> Any:
        """The arguments; many a vendor writes nothing where it means none."""
        text = "".join(self.pieces)
        return msgspec.json.decode(text) if text.strip() else {}
