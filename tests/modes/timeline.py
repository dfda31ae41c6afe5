"""Draws docs/modes.md's pictures from real runs: `python -m tests.modes.timeline` prints them."""

import asyncio
from collections.abc import Mapping

from proxy.events import Event, Finish, ReasoningDelta, SourceEnd, TextDelta, ToolInputDelta
from proxy.generator import StreamingGenerator
from proxy.modes.buffered import Buffered
from proxy.modes.chunked import Chunked
from proxy.modes.interleaved import Interleaved
from proxy.modes.priority import Priority
from proxy.modes.standard import Standard
from proxy.testing.merge import Script, ScriptedMerge

Column = list[tuple[int, str]]  # what happened, and after how many milliseconds

PAUSE = 50  # ms that the slow reader takes an event


def one_source() -> list[Event | float]:
    """An uneven model, and a tool call in the middle of a word."""
    texts = ["Rivers", " carry", " rain", ". ", "I'll", " check"]
    script: list[Event | float] = [step for text in texts for step in (TextDelta(content=text), 0.04)]
    script += [ToolInputDelta(name="search"), 0.16]
    return (
        script
        + [step for text in ["Yes", ": to", " the sea."] for step in (TextDelta(content=text), 0.04)]
        + [Finish()]
    )


def two_sources() -> dict[str, Script]:
    """One that says much at once, another that says little, a bit later."""
    thoughts = [ReasoningDelta(content=f"a thinks {number}") for number in (1, 2)]
    a, b = ([TextDelta(content=f"{name}{number}") for number in (1, 2, 3)] for name in "ab")
    return {
        "a": [*thoughts, *a, 0.42, Finish()],
        "b": [0.01, *b[:2], ToolInputDelta(name="search"), 0.22, b[2], Finish()],
    }


async def column(mode: StreamingGenerator, scripts: Mapping[str, Script], pause: float = 0.0) -> Column:
    """What `mode` lets out of these, and when."""
    said: Column = []
    async with ScriptedMerge(scripts) as merge:
        async for event in mode.generate(merge):
            said.append((round(merge.time() * 1000), shown(event)))
            if pause:
                await merge.clock.sleep(pause)
    return said


def shown(event: Event) -> str:
    match event:
        case TextDelta():
            return event.content if event.content[1:].isdigit() else f'"{event.content}"'
        case ReasoningDelta():
            return f"({event.content})"
        case ToolInputDelta():
            return f"{event.source} calls a tool"
        case SourceEnd():
            return f"{event.source} ends"
    return "finish"


def drawn(columns: Mapping[str, Column]) -> str:
    """A line a moment, a column a mode; what came at one moment stands side by side."""
    moments = sorted({time for column in columns.values() for time, _ in column})
    rows = [["ms", *columns]]
    for moment in moments:
        cells = [" ".join(what for time, what in column if time == moment) for column in columns.values()]
        rows.append([str(moment), *cells])
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = []
    for first, *cells in rows:
        lines.append("  ".join([first.rjust(widths[0]), *map(str.ljust, cells, widths[1:])]).rstrip())
    return "\n".join(lines)


async def regrouped() -> str:
    """What the modes that regroup text make of one source, for a reader who takes everything at once."""
    modes: dict[str, StreamingGenerator] = {
        "standard": Standard(),
        "buffered": Buffered(),
        "chunked, words": Chunked(),
        "chunked, sentences": Chunked(unit="sentences"),
    }
    return drawn({name: await column(mode, {"a": one_source()}) for name, mode in modes.items()})


async def reordered() -> str:
    """What the modes that choose an order make of two sources, for a reader who takes an event each PAUSE ms."""
    modes: dict[str, StreamingGenerator] = {
        "standard": Standard(),
        "interleaved": Interleaved(),
        "priority": Priority(),
        "priority, b first": Priority(sources={"b": 10}),
    }
    return drawn({name: await column(mode, two_sources(), PAUSE / 1000) for name, mode in modes.items()})


if __name__ == "__main__":
    for picture in (regrouped, reordered):
        print(asyncio.run(picture()), end="\n\n")
