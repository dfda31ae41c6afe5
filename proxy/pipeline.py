"""The whole journey of a request: who may serve it, who does, and what became of it."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from proxy.events import Event
from proxy.failover import Failover
from proxy.journey import Journey
from proxy.request import ChatRequest
from proxy.routing import Router


class Pipeline:
    """`live`: the requests that are on their way now."""

    def __init__(self, router: Router, failover: Failover):
        self.router = router
        self.failover = failover
        self.live: set[Journey] = set()

    @asynccontextmanager
    async def answer(self, request: ChatRequest, journey: Journey) -> AsyncIterator[AsyncGenerator[Event, None]]:
        """The events of an answer that has begun; leaving the block ends it.

        Raises RequestError for an unknown model, NoAnswer when all providers failed, Stopped when told to stop.
        """
        self.live.add(journey)
        self.failover.budget.running = len(self.live)
        try:
            routes = self.router.routes(request.model, fallback=request.options.fallback)
            call = await self.failover.open(request, routes, journey)
            try:
                async with aclosing(call.events()) as events:
                    yield events
            finally:
                await call.close()  # closing a generator that nobody began does nothing
        finally:
            self.live.discard(journey)
            self.failover.budget.running = len(self.live)
            journey.close()
