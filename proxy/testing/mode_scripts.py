"""Scripted streams that a mode must come through: what models say, and how it comes to us, oddities included."""

import json
from collections.abc import Sequence
from typing import Any

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
    ToolInput,
    ToolInputDelta,
    ToolOutput,
    Usage,
    Vendor,
)
from proxy.testing.adapter import says
from proxy.testing.merge import Script
from proxy.testing.upstream import chunk

LATIN = ["", "H", "ello", ", ", "w\u00f6rld.  e", "\u0301 "]  # an accent that comes after its letter
EMOJI = ["\U0001f468", "\u200d", "\U0001f469\u200d\U0001f467 ", "\U0001f1e9", "\U0001f1ea\U0001f1eb", "\U0001f1f7 "]
ASIAN = [
    "\u4f60\u597d\u3002\u4e16",
    "\u754c\uff01\u300d\n",
    "\u0e01",
    "\u0e33\u1112\u1161",
    "\u11ab",
    "\u0915\u094d",
    "\u0937",
]
BLANKS = ["\r", "\n\t 3.14 ", "word " * 100, "x" * 500]
ODD_PIECES = [*LATIN, *EMOJI, *ASIAN, *BLANKS]


def of_a_chunk(*events: Event, index: int = 0, delta: dict[str, Any] | None = None, **rest: Any) -> Sequence[Event]:
    """Events that came in one chunk of OpenAI's; `delta` and `rest` are what else stands in their choice."""
    text = "".join(event.content for event in events if isinstance(event, TextDelta))
    one = chunk({"content": text, **(delta or {})}, index=index)
    one["choices"][0] |= rest
    raw = json.dumps(one).encode()
    for event in events:
        event.raw, event.parts, event.index = raw, len(events), index
    return events


def token(text: str, index: int = 0) -> Sequence[Event]:
    """A piece of text with its log probability."""
    return of_a_chunk(TextDelta(content=text), index=index, logprobs={"content": [{"token": text, "logprob": -0.5}]})


def mode_scripts() -> dict[str, dict[str, Script]]:
    """What happens -> the name of each source -> what it says. New events each time."""
    return {
        "an ordinary answer": {"a": says("Hello, ", "world. ", "How are ", "you?")},
        "no text": {"a": says()},
        "nothing but an end": {"a": [Finish()]},
        "text in odd pieces": {"a": says(*ODD_PIECES)},
        "a slow source": {
            "a": [Start(), *(step for word in ["a", "b", "c", "d"] for step in (_text(word), 0.7)), Finish()]
        },
        "pieces of vendors' chunks": {"a": _in_chunks()},
        "thoughts, then tool calls": {"a": _agentic()},
        "two choices": {"a": _choices()},
        "an answer that was steered": {
            "a": [Start(), _text("one tw"), Steered(instruction="in French"), _text("un deux"), *says()[1:]]
        },
        "an answer that was begun anew": {
            "a": [Start(), _text("one tw"), Recovered(how="restarted", reason="cut"), _text("one two"), *says()[1:]]
        },
        "an error": {"a": [Start(), _text("Hello wor"), Error(message="cut")]},
        "an abort": {"a": [Start(), _text("Hello wor"), 0.01, Abort(reason="the client")]},
        "a source without an end": {"a": [Start(), _text("Hello wor")]},
        "three sources": {
            "a": says(*ODD_PIECES, usage=(5, 2)),
            "b": [*_agentic()[:-1], 0.2, Error(message="overloaded")],
            "c": [0.05, *_in_chunks()],
        },
        "sources that all fail": {
            "a": [Start(), _text("a"), Error(message="cut")],
            "b": [0.1, Abort(reason="told to")],
        },
    }


def _text(content: str, index: int = 0) -> TextDelta:
    return TextDelta(content=content, index=index)


def _in_chunks() -> list[Event]:
    return [
        *of_a_chunk(Start(), _text("One"), delta={"role": "assistant"}),
        *(event for word in (" two", " three.", " Four ", "") for event in token(word)),
        *of_a_chunk(_text("five"), delta={"annotations": [{"url": "x"}]}, content_filter_results={"hate": "safe"}),
        *of_a_chunk(Vendor(answer=True), delta={"refusal": "no"}),
        *of_a_chunk(_text("six "), ReasoningDelta(content="hm"), delta={"reasoning": "hm"}),
        _text(" seven"),
        TextDelta(content=" eight", choice={"logprobs": {"content": [{"token": " eight"}]}}),
        *of_a_chunk(_text("!"), FinishStep(reason="stop"), finish_reason="stop", stop_reason=7),
        Usage(input_tokens=3, output_tokens=8),
        Finish(usage=Usage(input_tokens=3, output_tokens=8)),
    ]


def _agentic() -> list[Event]:
    return [
        Start(id="1", model="m"),
        *(ReasoningDelta(content=word) for word in ("Let ", "me ", "see")),
        _text("I look it u"),
        ToolInput(id="t", name="search", input={"q": "x"}),
        _text("p. "),
        ToolOutput(id="t", output=[1]),
        _text("Now "),
        _text("I ask you:"),
        ToolInputDelta(slot=0, id="c", name="f"),
        ToolInputDelta(slot=0, content='{"a"'),
        ReasoningDelta(content="hm"),
        ToolInputDelta(slot=0, content=":1}"),
        Vendor(),
        FinishStep(reason="tool_calls"),
        Finish(),
    ]


def _choices() -> list[Event]:
    begins: list[Event] = [
        Start(),
        _text("The fir"),
        Start(index=1),
        _text("The sec", 1),
        _text("st on"),
        _text("ond", 1),
    ]
    middle = [
        *token("e. "),
        *token(" one", 1),
        ReasoningDelta(content="hm", index=1),
        _text("\u00e9nd"),
        _text(" end", 1),
    ]
    return [
        *begins,
        *middle,
        FinishStep(reason="stop"),
        _text(" is.", 1),
        FinishStep(reason="length", index=1),
        Finish(),
    ]
