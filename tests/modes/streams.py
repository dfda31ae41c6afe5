"""Random streams, as events: what one to three sources may say, in pieces cut anywhere, at any pace."""

import json
from typing import Any

from hypothesis import strategies as st

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
from proxy.testing import chunk
from proxy.testing.merge import Script

# What is hard to cut: blanks and line breaks, stops, accents, emoji, flags, scripts without blanks.
LETTERS = "ab1  \n\r.!?\"'\u3002\u300d\u4f60\u0301\u200d\U0001f468\U0001f469\U0001f1e9\U0001f1ea\u0e01\u0e33\u0600"
PIECES = st.text(LETTERS, max_size=6)


def in_a_chunk(content: str, index: int, events: list[Event], *, probable: bool) -> list[Event]:
    """Events as if they had come in one chunk on OpenAI's wire."""
    one: dict[str, Any] = chunk({"content": content}, index=index)
    if probable:
        one["choices"][0]["logprobs"] = {"content": [content]}
    raw = json.dumps(one).encode()
    for event in events:
        event.raw, event.parts = raw, len(events)
    return events


@st.composite
def said(draw: st.DrawFn, index: int) -> list[Event]:
    content = draw(PIECES)
    text: Event = TextDelta(content=content, index=index)
    match draw(st.integers(0, 15)):
        case 0:
            return [ReasoningDelta(content=content, index=index)]
        case 1:
            return [ToolInputDelta(content=content, index=index, slot=1)]
        case 2:
            return [Vendor(answer=draw(st.booleans()), raw=b'{"choices":[]}')]
        case 3:
            return [Steered(instruction=content)]
        case 4:
            return [TextDelta(content=content, index=index, choice={"logprobs": {"content": [content]}})]
        case 5:
            return in_a_chunk(content, index, [text, ReasoningDelta(content="hm", index=index)], probable=True)
        case 6 | 7 | 8:
            return in_a_chunk(content, index, [text], probable=draw(st.booleans()))
        case 9:
            return [Start(index=index)]
    return [text]


@st.composite
def scripts(draw: st.DrawFn) -> list[Event | float]:
    """What one source does: choices side by side, pauses, its end (which may be missing)."""
    most = draw(st.integers(0, 1))
    script: list[Event | float] = [Start()]
    for _ in range(draw(st.integers(0, 12))):
        if draw(st.integers(0, 4)) == 0:
            script.append(draw(st.sampled_from([0.0, 0.03, 0.2])))
        script += draw(said(draw(st.integers(0, most))))
    ends: list[list[Event]] = [
        [FinishStep(reason="stop"), Usage(output_tokens=1), Finish(usage=Usage(output_tokens=1))],
        [Error(message="cut")],
        [Abort(reason="told to")],
        [],
    ]
    return [*script, *draw(st.sampled_from(ends))]


@st.composite
def streams(draw: st.DrawFn) -> dict[str, Script]:
    """The scripts of one to three sources, by name."""
    return {name: draw(scripts()) for name in "abc"[: draw(st.integers(1, 3))]}
