"""A stream as its reader sees it: its id, how far it is, and what may be done to it while it runs."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple

from proxy.errors import RequestError
from proxy.events import ENDS, MODE_FAILED, Error, Event, Finish, Recovered, Steered
from proxy.journey import Journey
from proxy.state.sessions import SessionRef

LONGEST_PAUSE = 60.0  # seconds

_NOTED = ENDS | {Recovered, Steered}

# Why a stream is stopped, as its reader is told.
CLIENT_GONE = "the client went away"
SHUTDOWN = "Weir is shutting down"


class Resumption(NamedTuple):
    """Where a stream goes on that another replica began: after event `position`. `marker` tells its reader so, `begun`
    are the choices that he knows, `prefill` is what has been said of an answer that is to go on; `asked` where that
    answer begins.
    """

    stream_id: str
    position: int
    marker: Recovered
    begun: frozenset[int] = frozenset()
    prefill: str = ""
    asked: int = 0


class Stream:
    """One of a replica's streams. `position` is the `seq` of the last event that left for the reader.

    The controls return that position, once they have taken effect: what comes after it comes after the control.
    `owner` is who may use them. `recovered`: what produced it has died once; that is not mended twice.
    """

    def __init__(self, journey: Journey, replica: str = "local", owner: str = "", resumed: Resumption | None = None):
        self.id = resumed.stream_id if resumed else f"{replica}-{secrets.token_hex(12)}"
        self.owner = owner
        self.session: SessionRef | None = None
        self.journey = journey
        self.resumed = resumed
        self.recovered = resumed is not None
        self.durable = resumed is not None
        self.position = resumed.position if resumed else 0
        self._asked = resumed.asked if resumed else 0  # where what is being answered was asked
        self.instruction = ""  # the last one the reader gave
        self.steered = 0  # how many there were
        self._last: Event | None = None  # its end
        self._gate: asyncio.Future[None] | None = None  # shut while there is one
        self._reopens: asyncio.TimerHandle | None = None
        self._marked: asyncio.Future[int | None] | None = None  # what those wait for who steer
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop(self, reason: str) -> None:
        """Ends the stream with a marked end; `reason` is told to whoever still listens."""
        self.journey.stop(reason)
        self._open_gate()

    async def cancel(self, reason: str = "cancelled by its reader") -> int:
        """As `stop`; waits for the end."""
        self.stop(reason)
        await asyncio.shield(self._ended)
        return self.position

    async def pause(self, seconds: float = LONGEST_PAUSE) -> int:
        """Lets nothing go to the reader, until `resume`, or for so long; the provider is held back before long.

        This is no silence of the provider's: none of its limits runs while it waits for us. Raises RequestError (409)
        where it was told to end: nothing holds up its end.
        """
        if self.journey.stopped is not None:
            raise RequestError(f"the stream is told to end: {self.journey.stopped}", status=409, code="ended")
        loop = asyncio.get_running_loop()
        self._gate = self._gate or loop.create_future()
        if self._reopens is not None:
            self._reopens.cancel()
        self._reopens = loop.call_later(seconds, self._open_gate)
        return self.position

    async def resume(self) -> int:
        self._open_gate()
        return self.position

    async def steer(self, instruction: str) -> int:
        """Stops the answer, keeps what was said, and has it go on as `instruction` says; waits for the marker."""
        self.instruction = instruction
        self.steered += 1
        self._open_gate()
        self.journey.interrupt()
        self._marked = self._marked or asyncio.get_running_loop().create_future()
        marked = None if self.ended else await asyncio.shield(self._marked)
        if marked is None:
            raise RequestError("the stream has ended; send the instruction as a new request", status=409, code="ended")
        return marked

    @property
    def ended(self) -> bool:
        return self._ended.done()

    async def paced(self, events: AsyncIterator[Event]) -> AsyncGenerator[Event, None]:
        """`events` on their way to the reader: each gets its position, none passes a gate that is shut."""
        journey = self.journey
        async for event in events:
            while self._gate is not None:
                await self._gate
            if not journey.branches:
                event.source = journey.provider
            self.position = event.seq = self.position + 1
            if type(event) in _NOTED:
                self._note(event)
            yield event

    def _note(self, event: Event) -> None:
        """Tells those who wait for this event, and what comes of it for the stream."""
        if isinstance(event, Steered):
            self._asked = self.position
            self._mark(self.position)
        elif isinstance(event, Recovered):
            event.after = self._asked if event.how == "restarted" else event.after
        else:
            self._last = event
            if not self._ended.done():
                self._ended.set_result(None)

    def close(self) -> None:
        """Nothing will come any more."""
        self._open_gate()
        if not self._ended.done():
            self._ended.set_result(None)
        self._mark(None)
        self._tell()

    def _open_gate(self) -> None:
        if self._reopens is not None:
            self._reopens.cancel()
            self._reopens = None
        if self._gate is not None:
            if not self._gate.done():  # cancelled, with the reader that waited for it
                self._gate.set_result(None)
            self._gate = None

    def _mark(self, position: int | None) -> None:
        if self._marked is not None:
            self._marked.set_result(position)
            self._marked = None

    def _tell(self) -> None:
        """Lets the journey end as the stream did, where no single call can say so."""
        journey, last = self.journey, self._last
        if journey.branches and last is not None:
            journey.end = str(last.__struct_config__.tag)
            journey.usage = last.usage if isinstance(last, Finish) else None
        if isinstance(last, Error) and last.code == MODE_FAILED:
            journey.end = "error:mode"
