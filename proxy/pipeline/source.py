"""One of those who answer a request: a provider's call, and the calls that go on where the reader steered."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from os.path import commonprefix

from proxy.errors import Stopped, WeirError
from proxy.events import ENDS, Abort, Error, Event, Recovered, Start, Steered, TextDelta, ending
from proxy.journey import Journey
from proxy.merge import CLOSING
from proxy.pipeline.call import Call
from proxy.pipeline.failover import Failover
from proxy.pipeline.routing import Route, going_on
from proxy.pipeline.said import Said
from proxy.pipeline.stream import Stream
from proxy.pipeline.thoughts import Thoughts
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
        self.answers = {0: self._nothing()}
        self._prefill = ""  # what a provider that died has said of the answer that another one is to go on with
        self._blanks = ""  # at its end, which the other one may say again
        if stream.resumed is not None and (said := stream.resumed.prefill):
            self.said.add(TextDelta(content=said))
            self._go_on_from(said)
        self.end: Event | None = None
        self._failover = failover
        self._route = route
        self._routes = route()
        self._stream = stream
        self._call: Call | None = None
        self._opening: asyncio.Task[None] | None = None
        self._marker: Steered | Recovered | None = stream.resumed.marker if stream.resumed else None  # to be told
        self._begun = set(stream.resumed.begun) if stream.resumed else set()  # choices

    @property
    def said(self) -> Said:
        """To the last instruction that it took."""
        return self.answers[self.obeyed]

    async def open(self) -> None:
        """Raises NoAnswer when all providers failed, Stopped when told to stop."""
        while True:
            try:
                self._call = await self._failover.open(self._asked(), await self._takers(), self.journey)
                return
            except Stopped as error:
                if not self._takes_instruction():
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
                # Who steers is told at once. Nothing is taken back before somebody has agreed to say something else.
                if self._marker is not None and (self._call is not None or isinstance(self._marker, Steered)):
                    marker, self._marker = self._marker, None
                    yield marker
                if self._call is None:
                    await self.open()
                    continue  # it may have been steered meanwhile
                call, self._call, said = self._call, None, self.said
                async with aclosing(call.events()) as events:
                    async for event in events:
                        kind = type(event)
                        if kind in ENDS:
                            if isinstance(event, Abort):
                                if self._takes_instruction():
                                    break
                                event = Abort(reason=self.journey.stopped or event.reason)
                            elif isinstance(event, Error):
                                if await self._recovers(event):
                                    break
                                if self._marks_failure:
                                    yield Recovered(how="failed", reason=event.message)
                            self.end = event
                            self.journey.over()
                        elif kind is Start:
                            if event.index in self._begun:
                                continue  # where it goes on, nothing begins
                            self._begun.add(event.index)
                        elif self._blanks and isinstance(event, TextDelta):
                            event = self._joined(event)
                            if not event.content:
                                continue
                        said.add(event)
                        yield event
        except WeirError as error:
            self.end = ending(error)
            if isinstance(self.end, Error) and self._marks_failure:
                yield Recovered(how="failed", reason=error.message)
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

    @property
    def _marks_failure(self) -> bool:
        """Of several sources each tells by its own end that it broke."""
        return self._stream.durable and not self._stream.journey.branches

    async def _takers(self) -> Sequence[Route]:
        """Who may be asked; to go on with what was said, those alone whose models take that up."""
        if not self._prefill:
            return self._routes
        if not (routes := await going_on(self._routes)):
            raise WeirError("nobody who serves this goes on with what another has said", status=502)
        return routes

    def _asked(self) -> ChatRequest:
        """The request as a provider is to see it."""
        if not self._prefill:
            return self.request
        return self.request.with_messages([*self.request.messages, {"role": "assistant", "content": self._prefill}])

    async def _recovers(self, broken: Error) -> bool:
        """Whether an answer that broke is to be had all the same, as its request wants it. If so, it can be opened."""
        how = self.request.options.recovery
        if how == "fail" or self._stream.recovered or self._failover.budget.is_spent or self.journey.stopped:
            return False
        routes = self._route()
        if how == "continue":
            if not self.said.is_text or not await going_on(routes):
                return False
            self._go_on_from(self.said.text())
            self._marker = Recovered(how="continued", reason=broken.message)
        else:
            self.answers[self.obeyed] = self._nothing()
            self._marker = Recovered(how="restarted", reason=broken.message)
        self._stream.recovered = True
        self._routes = routes
        self.journey.failures.clear()
        return True

    def _nothing(self) -> Said:
        """What has been said, at the beginning."""
        return Said(Thoughts() if self.request.options.session_id is not None else None)

    def _go_on_from(self, said: str) -> None:
        """Some vendors refuse a last message that ends in blanks: those are kept from them."""
        self._prefill = said.rstrip()
        self._blanks = said[len(self._prefill) :]

    def _joined(self, event: TextDelta) -> TextDelta:
        """`event` without the blanks that its reader has already."""
        again = len(commonprefix((self._blanks, event.content)))  # noqa: RUF071  of any texts, not paths
        self._blanks = self._blanks[again:] if again == len(event.content) else ""
        return TextDelta(index=event.index, content=event.content[again:], choice=event.choice) if again else event

    def _takes_instruction(self) -> bool:
        """Whether the call was broken off because the reader has steered. If so, the next one is ready to be opened."""
        if self.journey.stopped is not None or self.obeyed == self._stream.steered:
            return False
        self._routes = self._route()
        self._prefill = self._blanks = ""
        self.journey.deadline.go_on()
        self.journey.failures.clear()  # those of the call that was broken off
        text = self.said.text()  # a tool call without its result would be refused
        told = [{"role": "assistant", "content": text}] if text else []
        told.append({"role": "user", "content": self._stream.instruction})
        self.request = self.request.with_messages([*self.request.messages, *told])
        if isinstance(self._marker, Steered):  # nobody knows yet of the one before
            del self.answers[self.obeyed]
        self._marker = Steered(instruction=self._stream.instruction)
        self.obeyed = self._stream.steered
        self.answers[self.obeyed] = self._nothing()
        return True
