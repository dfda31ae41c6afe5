"""A mode at work. It may be a plugin's: whatever it does, the stream ends, once, and for nobody else."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from proxy.deadline import Deadline
from proxy.events import ENDS, MODE_FAILED, Error, Event, Quiet
from proxy.generator import StreamingGenerator
from proxy.merge import Merge

log = logging.getLogger(__name__)

PATIENCE = 60.0  # seconds that a mode may keep what it was given without a word


async def shaped(mode: StreamingGenerator, name: str, merge: Merge, deadline: Deadline) -> AsyncGenerator[Event, None]:
    """What `mode` makes of `merge`, ended by exactly one of Finish, Error, Abort.

    `deadline` must excuse waits in which the merge is starved: those are the sources' own, and limited there.
    """
    last: Event = Error(message=f"mode {name}: ended before the stream did", code=MODE_FAILED)
    try:
        async with aclosing(mode.generate(merge)) as events:
            while True:
                deadline.expect(PATIENCE)
                event = await anext(events)
                deadline.received()
                if not isinstance(event, Event) or isinstance(event, Quiet):
                    raise TypeError(f"a mode yields events, not {event!r}")
                if type(event) in ENDS:
                    last = event
                    break
                yield event
    except StopAsyncIteration:
        pass
    except asyncio.CancelledError:
        if not deadline.interrupted():
            raise
        said = f"mode {name}: kept what it was given for {PATIENCE:g} s"
        last = Error(message=said, code=MODE_FAILED)
    except Exception as error:
        log.exception("mode %s failed", name)
        last = Error(message=f"mode {name} failed: {type(error).__name__}: {error}", code=MODE_FAILED)
    yield last
