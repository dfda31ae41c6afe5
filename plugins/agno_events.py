"""agno's events, read into ours: its `agno/run/agent.py` and `agno/run/team.py` say what they are."""

import json
from collections.abc import Iterator
from typing import Any

from plugins.agno_copy import Watch
from proxy.errors import Kind, ProviderError
from proxy.events import Event, Finish, FinishStep, ReasoningDelta, TextDelta, ToolInput, ToolOutput, Usage


class RunReader:
    """Reads the events of one run, in order, and knows whether it is complete."""

    def __init__(self, watch: Watch):
        self._watch = watch
        self._running: set[str] = set()  # tools
        self._spoke = False
        self._usage: Usage | None = None
        self._complete = False
        self._failure: ProviderError | None = None

    def read(self, event: Any) -> Iterator[Event]:
        """Our events for one of agno's, or for what it raised. Of a team's members only their tools are heard."""
        name = str(getattr(event, "event", "")).removeprefix("Team")
        if isinstance(event, Exception):
            self._failure = self._failure or ProviderError(Kind.SERVER, f"{type(event).__name__}: {event}")
        elif self._failure:
            pass
        elif name.startswith("ToolCall") and event.tool:
            yield from self._tool(name, event)
        elif isinstance(event, str):  # as AgentProtocol allows
            yield from self._text(event)
        elif not getattr(event, "parent_run_id", None):
            yield from self._own(name, event)

    def finish(self) -> list[Event]:
        """The end of a complete run. Raises ProviderError if it failed, or just ended."""
        if self._failure:
            raise self._failure
        if not self._complete:
            raise ProviderError(Kind.CUT, "the run ended without saying that it is complete")
        return [*([self._usage] if self._usage else []), Finish(usage=self._usage)]

    def _own(self, name: str, event: Any) -> Iterator[Event]:
        match name:
            case "RunContent" | "ReasoningContentDelta":
                thought, content = getattr(event, "reasoning_content", None), getattr(event, "content", None)
                if thought and thought != content:  # of some models, agno says that all their text is both
                    yield ReasoningDelta(content=thought)
                yield from self._text(content)
            case "RunCompleted":
                if not self._spoke:
                    yield from self._text(event.content)
                reason = self._watch.reason
                yield FinishStep(reason=reason if reason in ("length", "content_filter") else "stop")
                self._complete, self._usage = True, _usage(event)
            case "RunError":
                said = str(event.content or "the agent failed, and did not say why")
                refused = event.error_type == "input_check_error"  # by a guardrail, and the client's fault
                known = self._watch.failures.get(said)
                self._failure = known or ProviderError(Kind.REJECTED if refused else Kind.SERVER, said)
            case "RunCancelled":
                what = f"the run was cancelled: {event.reason or 'nobody said why'}"
                self._failure = ProviderError(Kind.SERVER, what)
            case "RunPaused":
                names = ", ".join(tool.tool_name for tool in event.tools or () if tool.is_paused)
                what = f"the agent waits for a person before it runs {names}, and there is none here"
                self._failure = ProviderError(Kind.REJECTED, what)

    def _text(self, content: Any) -> Iterator[Event]:
        if content is not None and not isinstance(content, str):  # by an output schema
            dump = getattr(content, "model_dump_json", None)
            content = dump() if dump else json.dumps(content, default=str, ensure_ascii=False)
        if content:
            self._spoke = True
            yield TextDelta(content=content)

    def _tool(self, name: str, event: Any) -> Iterator[Event]:
        tool = event.tool
        call = tool.tool_call_id or ""
        if name == "ToolCallStarted":
            self._running.add(call)
            yield ToolInput(id=call, name=tool.tool_name or "", input=tool.tool_args or {})
        elif call in self._running:  # of one that fails, agno says that it is completed, and then that it failed
            self._running.discard(call)
            failed = tool.tool_call_error or name == "ToolCallError"
            yield ToolOutput(id=call, error=str(tool.result)) if failed else ToolOutput(id=call, output=tool.result)


def _usage(event: Any) -> Usage | None:
    """What a run used, with all runs within it: a team's own metrics leave its members out."""
    runs = [event]
    for run in runs:
        runs += getattr(run, "member_responses", None) or ()
    counts = [run.metrics for run in runs if getattr(run, "metrics", None)]
    if not counts:
        return None
    cached, thought = sum(it.cache_read_tokens for it in counts), sum(it.reasoning_tokens for it in counts)
    return Usage(
        input_tokens=sum(it.input_tokens for it in counts),
        output_tokens=sum(it.output_tokens for it in counts),
        details={
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": thought},
        },
    )
