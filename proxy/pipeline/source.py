"""One of those who answer a request: a provider's call, and the calls that go on where the reader steered."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from proxy.errors import Stopped, WeirError
from proxy.events import ENDS, Abort, Error, Event, Start, Steered
from proxy.journey import Journey
from proxy.merge import CLOSING
from proxy.pipeline.call import Call
from proxy.pipeline.failover import Failover
from proxy.pipeline.routing import Route
from proxy.pipeline.said import Said
from proxy.pipeline.stream import Stream
from proxy.request import ChatRequest
from proxy.tasks import end


class Source:
    """Opened with `open`, or in the background with `begin`; then read with `events`, and closed in any case.

    `end` is how it ended. `answers` is what it has said to each instruction that it took, by its number, in order; 0 is
    the request itself, `obeyed` the latest.
    """

    def __init__(
        self,
        failover: Failover,
        request: ChatRequest,
        route: Callable[[], Sequence[Route]],
        journey: Journey,
        stream: Stream,
    ):
        self.request = request
        self.journey = journey
        self.obeyed = 0
        self.answers = {0: Said()}
        self.end: Event | None = None
        self._failover = failover
        self._route = route
        self._routes = route()
        self._stream = stream
        self._call: Call | None = None
        self._opening: asyncio.Task[None] | None = None
        self._marker: Steered | None = None  # of that one, until its reader is told
        self._begun: set[int] = set()  # choices

    @property
    def said(self) -> Said:
        """To the last instruction that it took."""
        return self.answers[self.obeyed]

    async def open(self) -> None:
        """Raises NoAnswer when all providers failed, Stopped when told to stop."""
        while True:
            try:
                self._call = await self._failover.open(self.request, self._routes, self.journey)
                return
            except Stopped as error:
                if not self._turns():
                    raise Stopped(self.journey.stopped or error.message) from None  # it may have been steered, too

    def begin(self) -> asyncio.Task[None]:
        """Opens while others do; what `open` raises is the task's, and an event of `events`."""
        self._opening = asyncio.create_task(self.open())
        return self._opening

    async def events(self) -> AsyncGenerator[Event, None]:
        """What it says, ended by exactly one of Finish, Error, Abort."""
        try:
            if self._opening is not None:
                await self._opening
            while self.end is None:
                if self._marker is not None:
                    marker, self._marker = self._marker, None
                    yield marker
                if self._call is None:
                    await self.open()
                    continue  # it may have been steered meanwhile
                call, self._call = self._call, None
                async with aclosing(call.events()) as events:
                    async for event in events:
                        kind = type(event)
                        if kind in ENDS:
                            if isinstance(event, Abort):
                                if self._turns():
                                    break
                                event = Abort(reason=self.journey.stopped or event.reason)
                            self.end = event
                            self.journey.over()
                        elif kind is Start:
                            if event.index in self._begun:
                                continue  # where it goes on, nothing begins
                            self._begun.add(event.index)
                        self.said.add(event)
                        yield event
        except Stopped as error:
            self.end = Abort(reason=error.message)
            yield self.end
        except WeirError as error:
            self.end = Error(message=error.message, code=error.code)
            yield self.end

    async def close(self) -> None:
        """Ends what is still open."""
        try:
            if self._opening is not None:
                self._opening.cancel()
                await asyncio.wait([self._opening], timeout=CLOSING)
                await end(self._opening)
        finally:
            if self._call is not None:
                await self._call.close()

    def _turns(self) -> bool:
        """Whether it was broken off to go on as the reader wishes. If so, it is ready to be opened again."""
        if self.journey.stopped is not None or self.obeyed == self._stream.steered:
            return False
        self._routes = self._route()
        self.journey.deadline.go_on()
        self.journey.failures.clear()  # those of the call that was broken off
        text = self.said.text()  # a tool call without its result would be refused
        told = [{"role": "assistant", "content": text}] if text else []
        told.append({"role": "user", "content": self._stream.instruction})
        self.request = self.request.with_messages([*self.request.messages, *told])
        if self._marker is not None:  # nobody knows yet of the one before
            del self.answers[self.obeyed]
        self._marker = Steered(instruction=self._stream.instruction)
        self.obeyed = self._stream.steered
        self.answers[self.obeyed] = Said()
        return True
