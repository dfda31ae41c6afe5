"""When the reader is slower than the writers, what matters most goes first."""

import heapq
import itertools
import math
from collections import deque
from collections.abc import AsyncGenerator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from proxy.events import Event, Quiet, ReasoningDelta, TextDelta, ToolInput, ToolInputDelta, ToolOutput, Vendor
from proxy.generator import MARKS, StreamingGenerator
from proxy.merge import MOST_EVENTS, MOST_SIZE, Merge, size_of

Rank = Annotated[float, Field(ge=-1e9, le=1e9)]


class Ranks(BaseModel):
    """The highest goes first. `answers` is text, `thoughts` reasoning, `control` whatever is none of the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    control: Rank = 3
    tools: Rank = 2
    answers: Rank = 1
    thoughts: Rank = 0

    def of(self, event: Event) -> float:
        match event:
            case TextDelta() | Vendor(answer=True):
                return self.answers
            case ReasoningDelta():
                return self.thoughts
            case ToolInputDelta() | ToolInput() | ToolOutput():
                return self.tools
        return self.control


class Priority(StreamingGenerator):
    """An event's rank is its kind's plus its source's (`sources`, by name; 0 if not given). Of equals, the first.

    Nothing overtakes what is of its own source and kind. A mark (the beginning or end of a choice, the end of a
    source, an instruction obeyed) overtakes nothing of its own source: it lends its rank to what comes before it.
    """

    reorders = True

    ranks: Ranks = Ranks()
    sources: dict[str, Rank] = {}

    async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        waiting: dict[str, _Waiting] = {}
        numbers = itertools.count()
        while True:
            # All that has come, as far as there is room: the rest stays in the merge, which holds its source back.
            while ready := [it for it in merge.ready() if it not in waiting or waiting[it].has_room()]:
                source = merge.oldest(ready)
                if source not in waiting:
                    waiting[source] = _Waiting()
                event = merge.take(source)
                waiting[source].add(event, self.ranks.of(event) + self.sources.get(source, 0), next(numbers))
            if first := min(filter(None, waiting.values()), key=_Waiting.turn, default=None):
                yield first.take()
                continue
            last = await merge.wait()
            if last is not None and not isinstance(last, Quiet):
                yield last
                return


class _Waiting:
    """What one source has said and the reader has not got, in spans that end in a mark; the last one has none yet."""

    def __init__(self) -> None:
        self._spans = deque([_Span()])
        self._events = 0
        self._size = 0

    def __bool__(self) -> bool:
        return self._events > 0

    def has_room(self) -> bool:
        return self._events < MOST_EVENTS and self._size < MOST_SIZE

    def add(self, event: Event, rank: float, number: int) -> None:
        """`number` counts the events of all sources, in the order in which they came."""
        self._events += 1
        self._size += size_of(event)
        span = self._spans[-1]
        if type(event) in MARKS:
            heapq.heappush(span.events, (math.inf, number, event))
            span.lent = rank
            self._spans.append(_Span())
        else:
            heapq.heappush(span.events, (-rank, number, event))

    def turn(self) -> tuple[float, int]:
        """Of several sources, the one of which this is least has its turn."""
        span = self._spans[0]
        order, number, _ = span.events[0]
        return min(order, -span.lent), number

    def take(self) -> Event:
        span = self._spans[0]
        event = heapq.heappop(span.events)[2]
        if type(event) in MARKS:
            self._spans.popleft()
        self._events -= 1
        self._size -= size_of(event)
        return event


class _Span:
    """`events` is a heap: the highest rank first, then the first to come. `lent` is the rank of the mark at its end."""

    def __init__(self) -> None:
        self.events: list[tuple[float, int, Event]] = []
        self.lent = -math.inf
