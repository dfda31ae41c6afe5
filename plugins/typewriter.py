"""A stream mode of your own, complete: text comes at the pace of a typewriter, however fast the model writes.

Put a file like this on PYTHONPATH, name it under `plugins` in providers.yaml, and ask for the mode by its name:

    plugins: [plugins.typewriter]

    {"generator_mode": "typewriter", "generator_config": {"cps": 60}, "messages": [...]}

A mode is given a merge to read: what one or several models say, as events, in the order in which it came. It yields
what the reader is to get. That is all; `tests/plugins/test_typewriter.py` shows how to hold it to the rules.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pydantic import Field

from proxy.events import Event, TextDelta
from proxy.generator import StreamingGenerator
from proxy.merge import Merge
from proxy.modes.chunked import Chunked
from proxy.registry import Registry

PIECES = 20  # a second: as smooth as an eye can tell, and no more events than that


class Typewriter(StreamingGenerator):
    """`cps`: characters a second, where a character is what a reader takes for one: an emoji, a letter with accents.

    The fields of a mode are its options. Pydantic checks what a request gives for them; whoever asks for `cps: 0` is
    told so, with status 400, before any model is asked.
    """

    cps: float = Field(default=40, ge=1, le=10_000)

    async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        size = max(1, round(self.cps / PIECES))
        due = merge.time()  # when the next piece of text may leave
        # Modes go together. This one lets another cut the text, which knows all about emoji and accents, and about
        # choices and sources that come side by side; what is left to do is to wait.
        chunked = Chunked(unit="characters", size=size)
        async with aclosing(chunked.generate(merge)) as events:  # closed with us, when the reader goes away
            async for event in events:
                if isinstance(event, TextDelta):
                    # Late is late: after a break, typing goes on from here, and does not catch up.
                    due = max(due, merge.time())
                    # Not asyncio.sleep: this ends early if the stream breaks, and tests need not wait for it.
                    # Nothing is read meanwhile, so nothing piles up here: before long, the model is held back.
                    await merge.until(due)
                    due += min(len(event.content), size) / self.cps
                # All else (thoughts, tool calls, the end) passes as it came: behind the text before it, and at once.
                yield event


def register(registry: Registry) -> None:
    """Called once, when Weir starts. The built-in modes come in by this door too: see proxy/modes/__init__.py."""
    registry.add_mode("typewriter", Typewriter)
