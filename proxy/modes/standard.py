"""Every event goes out as it arrives."""

from collections.abc import AsyncGenerator

from proxy.events import Event, Quiet
from proxy.generator import StreamingGenerator
from proxy.merge import Merge


class Standard(StreamingGenerator):
    async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        async for event in merge:
            if not isinstance(event, Quiet):
                yield event
