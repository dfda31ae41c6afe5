"""The whole journey of a request: who may serve it, who does, how that is shaped, and what became of it."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import msgspec

from proxy.deadline import Deadline
from proxy.errors import NoAnswer, ProviderError, WeirError
from proxy.events import Event
from proxy.generator import GeneratorMode, StreamingGenerator
from proxy.journey import Journey
from proxy.merge import Merge
from proxy.pipeline.failover import Failover
from proxy.pipeline.memory import Memory
from proxy.pipeline.routing import Route, Router, going_on
from proxy.pipeline.shaping import shaped
from proxy.pipeline.source import Source
from proxy.pipeline.stream import Stream
from proxy.registry import Registry
from proxy.request import ChatRequest
from proxy.session.conversation import Feedback
from proxy.state.sessions import SessionStore

log = logging.getLogger(__name__)

MOST_PAST = 1000  # streams that have ended, and may still be rated


class Pipeline:
    """`live`: the streams that are on their way now, by id. Those that ended last are known for a while (`find`).

    `log_content`: what is asked and answered goes to the log, in clear.
    """

    def __init__(self, router: Router, failover: Failover, registry: Registry, sessions: SessionStore):
        self.router = router
        self.failover = failover
        self.registry = registry
        self.sessions = sessions
        self.log_content = False
        self.live: dict[str, Stream] = {}
        self._past: OrderedDict[str, Stream] = OrderedDict()

    def find(self, stream_id: str) -> Stream | None:
        return self.live.get(stream_id) or self._past.get(stream_id)

    def check(self, request: ChatRequest) -> None:
        """Raises RequestError for an unknown model or mode."""
        self.registry.mode(request.options.mode, request.options.config, request.options_in)
        self._routes(request)

    async def goes_on(self, request: ChatRequest) -> bool:
        """Whether somebody may serve it who takes up what another has said. Raises RequestError."""
        return bool(await going_on(self._routes(request)))

    @asynccontextmanager
    async def answer(self, request: ChatRequest, stream: Stream) -> AsyncIterator[AsyncGenerator[Event, None]]:
        """The events of an answer that has begun; leaving the block ends it.

        Raises RequestError for an unknown model or mode, NoAnswer when all providers failed, Stopped when told to stop.
        """
        options = request.options
        mode = self.registry.mode(options.mode, options.config, request.options_in)
        memory = Memory(self.sessions, request, stream) if options.session_id is not None else None
        self.live[stream.id] = stream
        self.failover.budget.running = len(self.live)
        self._tell("began", stream.journey)
        sources: list[Source] = []
        try:
            if memory is not None:
                request = await memory.recall(request, self._routes(request))
            sources += self._sources(request, stream)
            await _opened(sources)
            events = _shaped(mode, options.mode, sources)
            kept = memory.kept(events, sources) if memory else events
            async with aclosing(events), aclosing(kept), aclosing(stream.paced(kept)) as paced:
                yield paced
        finally:
            try:
                await _tidied(sources, memory)
            finally:
                self._over(stream, sources)

    def _over(self, stream: Stream, sources: Sequence[Source]) -> None:
        if self.log_content:
            _log_content(sources)
        self.live.pop(stream.id, None)
        self._past[stream.id] = stream
        if len(self._past) > MOST_PAST:
            self._past.popitem(last=False)
        self.failover.budget.running = len(self.live)
        stream.close()
        stream.journey.close()
        self._tell("ended", stream.journey)

    async def note(self, stream: Stream, feedback: Feedback) -> None:
        """Keeps what a reader thinks of a stream with its session, and counts it for the provider. Raises StoreAway."""
        if stream.session is not None:
            await self.sessions.add_feedback(stream.session, feedback)
        journey = stream.journey
        whose = {branch.model: branch.provider for branch in journey.branches} or {journey.provider: journey.provider}
        upstream = self.router.get(whose.get(feedback.source or journey.provider, ""))
        if upstream is not None and feedback.rating is not None:
            upstream.meter.add(f"rated_{feedback.rating}")

    def _routes(self, request: ChatRequest) -> list[Route]:
        """Everyone who may come to see the request."""
        fallback = request.options.fallback
        return [route for name in request.sources for route in self.router.routes(name, fallback=fallback)]

    def _sources(self, request: ChatRequest, stream: Stream) -> list[Source]:
        names, fallback = request.sources, request.options.fallback
        many = len(names) > 1
        return [
            Source(
                self.failover,
                request,
                lambda name=name: self.router.routes(name, fallback=fallback),  # type: ignore[misc]
                stream.journey.branch(name) if many else stream.journey,
                stream,
            )
            for name in names
        ]

    def _tell(self, what: str, journey: Journey) -> None:
        for monitor in self.registry.monitors:
            try:
                getattr(monitor, what)(journey)
            except Exception:  # a monitor is a plugin's; nobody's stream depends on it
                log.exception("monitor %r failed", monitor)


def _log_content(sources: Sequence[Source]) -> None:
    for source in sources:
        asked, said = (msgspec.json.encode(it).decode() for it in (source.request.messages, source.said.message()))
        log.info("request %s asked %s: %s and got: %s", source.journey.id, source.journey.provider, asked, said)


async def _tidied(sources: Sequence[Source], memory: Memory | None) -> None:
    """Whatever becomes of the sources, what they said is written down."""
    try:
        await _close(sources)
    finally:
        if memory is not None:
            await memory.close(sources)


async def _close(sources: Sequence[Source]) -> None:
    """All of them, whatever becomes of one."""
    if sources:
        try:
            await sources[-1].close()
        finally:
            await _close(sources[:-1])


def _shaped(mode: StreamingGenerator, name: str, sources: Sequence[Source]) -> AsyncGenerator[Event, None]:
    """What the sources say, in one stream, as `mode` lets it out."""
    if len(sources) == 1 and name == GeneratorMode.STANDARD:  # nothing to merge, nothing to shape: nearly all
        return sources[0].events()
    return _merged(mode, name, sources)


async def _merged(mode: StreamingGenerator, name: str, sources: Sequence[Source]) -> AsyncGenerator[Event, None]:
    async with Merge({source.journey.model: source.events() for source in sources}) as merge:
        deadline = Deadline(excused=lambda: merge.starved)
        try:
            async with aclosing(shaped(mode, name, merge, deadline)) as events:
                async for event in events:
                    yield event
        finally:
            deadline.close()


async def _opened(sources: Sequence[Source]) -> None:
    """Waits until one of the sources has begun to answer. Raises what all of them raised, as one."""
    if len(sources) == 1:
        await sources[0].open()
        return
    opening = {source.begin() for source in sources}
    failed: list[WeirError] = []
    while opening:
        done, opening = await asyncio.wait(opening, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is None:
                return
            if not isinstance(error, WeirError):
                raise error
            failed.append(error)
    failures: dict[str, ProviderError] = {}
    for error in failed:
        if not isinstance(error, NoAnswer):
            raise error
        failures |= error.failures
    raise NoAnswer(failures)
