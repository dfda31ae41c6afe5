"""Several sources take turns."""

from collections.abc import AsyncGenerator

from pydantic import Field

from proxy.events import Event, Quiet
from proxy.generator import StreamingGenerator
from proxy.merge import Merge


class Interleaved(StreamingGenerator):
    """A turn is up to `turn` events. It goes to the source that has waited longest for one, of those that are ready.

    So two sources that are both ready are never more than one turn apart, and nobody waits for one that is not.
    """

    turn: int = Field(default=1, ge=1, le=1000)

    async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        turns, latest = 0, dict[str, int]()  # which turn was each source's latest
        while True:
            event = await merge.wait()
            if event is None:
                source = min(merge.ready(), key=lambda name: latest.get(name, 0))
                latest[source] = turns = turns + 1
                for _ in range(self.turn):
                    yield merge.take(source)
                    if source not in merge.ready():
                        break
            elif not isinstance(event, Quiet):
                yield event
                return
