"""Text is held until there is enough of it, or it has waited long enough."""

from collections.abc import AsyncGenerator

from pydantic import Field

from proxy.events import Event, Quiet, TextDelta
from proxy.generator import StreamingGenerator
from proxy.merge import Merge
from proxy.modes.text import Held, Run


class Buffered(StreamingGenerator):
    """`buffer_size` in characters, `flush_interval` in seconds after the first of them: whichever comes first."""

    buffer_size: int = Field(default=1024, ge=1, le=65536)
    flush_interval: float = Field(default=0.1, gt=0, le=60)

    async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        held, awaited = Held(_Waiting), False
        async for event in merge:
            if isinstance(event, TextDelta):
                run = held.run_of(event)
                if not run:
                    run.due = merge.time() + self.flush_interval
                run.add(event)
                if len(run.text) >= self.buffer_size:
                    for piece in run.rest():
                        yield piece
                elif not awaited:  # else the clock rings soon enough, and is asked again then
                    merge.wake_at(run.due)
                    awaited = True
            elif isinstance(event, Quiet):
                for run in held:
                    if run.due <= merge.time():
                        for piece in run.rest():
                            yield piece
                waiting = [run.due for run in held if run]
                merge.wake_at(min(waiting, default=None))
                awaited = bool(waiting)
            else:
                for piece in held.let_go(event):
                    yield piece
                yield event


class _Waiting(Run):
    due = 0.0
