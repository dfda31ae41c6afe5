"""One attempt at one provider: its limits are kept, its end is told, and it is counted exactly once."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator

from proxy.errors import Kind, ProviderError, Stopped, WeirError, redact
from proxy.events import ENDS, Abort, Error, Event, Finish, Usage, commits
from proxy.journey import Journey
from proxy.request import ChatRequest
from proxy.session.messages import told_to
from proxy.tally import Outcome
from proxy.upstream import Upstream

log = logging.getLogger(__name__)

MOST_HELD = 1000  # events before the first part of an answer
CLOSING = 1.0  # seconds that an adapter may take to let go of a stream


class Call:
    """Opened with `open`, then read with `events`, or else closed with `close`."""

    def __init__(self, upstream: Upstream, model: str, request: ChatRequest, journey: Journey):
        self.upstream = upstream
        self._model = model
        self._request = request
        self._journey = journey
        self._deadline = journey.deadline
        self._limits = request.options.timeouts_of(upstream.config)
        self._generation = upstream.circuit.generation
        self._held: list[Event] = []
        self._events: AsyncGenerator[Event, None] | None = None
        self._began = time.monotonic()
        self._first_token: float | None = None
        self._settled = False

    async def open(self) -> None:
        """Reads up to the commit point: the first part of an answer. Nothing is shown to the client before it.

        Raises ProviderError, Stopped, or CancelledError; the attempt has been counted by then.
        """
        self._journey.asks(self.upstream.id)
        self.upstream.began()
        self._deadline.restart(self._limits.total)
        try:
            self._deadline.expect(self._limits.first_token)
            await self.upstream.ready_to_stream()
            self._events = self._ask()
            event = Event()
            while not (commits(event) or type(event) in ENDS):
                event = await anext(self._events)
                self._held.append(event)
                if len(self._held) > MOST_HELD:
                    raise ProviderError(Kind.GARBLED, "it says much and answers nothing")
            if type(event) in ENDS:
                _usage_of(event)
            self._deadline.received()
            self._committed()
        except BaseException as error:
            failure = self._explained(error)
            await self._settle(failure)
            raise failure from None

    async def events(self) -> AsyncGenerator[Event, None]:
        """Everything the provider says, from the start, ended by exactly one of Finish, Error, Abort."""
        source = self._events
        assert source is not None, "open() comes first"
        deadline, limit = self._deadline, self._limits.between_tokens
        failure: BaseException | None = _reader_left()
        *before, event = self._held
        try:
            for earlier in before:
                yield earlier
            while type(event) not in ENDS:
                yield event
                deadline.expect(limit)
                event = await anext(source)
                deadline.received()
                if not isinstance(event, Event):
                    raise TypeError(f"an adapter yields events, not {event!r}")
            self._journey.usage = _usage_of(event)
            failure = None
            yield event
        except GeneratorExit:
            raise
        except BaseException as error:
            failure = self._explained(error)
            if not isinstance(failure, WeirError):
                raise failure from None
        finally:
            await self._settle(failure)
        if isinstance(failure, Stopped):
            yield Abort(reason=failure.message)
        elif isinstance(failure, WeirError):
            yield Error(message=f"{self.upstream.id}: {failure.message}", code=failure.code)

    async def close(self) -> None:
        """Ends the attempt, if `events` has not."""
        await self._settle(_reader_left())

    def _ask(self) -> AsyncGenerator[Event, None]:
        request, adapter = self._request, self.upstream.adapter
        fields = {**request.fields, "model": self._model}
        if adapter.supports_feature("fallback"):
            fields["weir_fallback"] = bool(self._journey.failures)  # another provider was asked first
        if request.user_id is not None and adapter.supports_feature("user_id"):
            fields.setdefault("user", request.user_id)  # other vendors are not told who our client's users are
        messages = request.messages
        if request.options.session_id is not None:
            messages = told_to(self.upstream.id, messages)
        return adapter.stream_chat(messages, request.tools, **fields)

    def _committed(self) -> None:
        self._first_token = time.monotonic() - self._began
        self._journey.commits()
        self.upstream.circuit.first_token(self._generation, self.upstream.clock())

    def _explained(self, error: BaseException) -> BaseException:
        """What really happened: an adapter may raise anything, and a wait may have been interrupted by us."""
        if self._deadline.interrupted():  # whatever the adapter made of that
            if self._deadline.fired:
                return self._timeout()
            return Stopped(self._deadline.stopped or "")
        if not isinstance(error, Exception | asyncio.CancelledError):
            return error
        if self._deadline.cancelled():
            return error if isinstance(error, asyncio.CancelledError) else asyncio.CancelledError()
        if isinstance(error, StopAsyncIteration):
            return ProviderError(Kind.CUT, "the stream ended without an end")
        secrets = self.upstream.config.secrets()
        if isinstance(error, ProviderError):
            error.message = redact(error.message, secrets)
            return error
        log.error("adapter of %s failed: %s", self.upstream.id, self.upstream.traceback_of(error))
        said = redact(f"{type(error).__name__}: {error}", secrets)
        return ProviderError(Kind.SERVER, f"its adapter failed: {said}")

    def _timeout(self) -> ProviderError:
        limits = self._limits
        waited = "the first token" if self._first_token is None else "the next token"
        message = f"no end to the wait for {waited} (limits: {limits.first_token:g} s to the first, "
        message += f"{limits.between_tokens:g} s between tokens, {limits.total:g} s in total)"
        return ProviderError(Kind.TIMEOUT, message)

    async def _settle(self, failure: BaseException | None) -> None:
        """Closes the upstream call, and tells the circuit and the figures how it ended."""
        if self._settled:
            return
        self._settled = True
        upstream, circuit = self.upstream, self.upstream.circuit
        self._journey.end = self._ending(failure)
        self._count(failure)
        if failure is None:
            circuit.succeeded(self._generation)
        elif isinstance(failure, ProviderError) and failure.kind.trips:
            circuit.failed(self._generation, upstream.clock())
        elif isinstance(failure, ProviderError) and failure.kind is Kind.RATE_LIMIT and failure.retry_after:
            upstream.rest(failure.retry_after)
        try:
            if self._events is not None:
                async with asyncio.timeout(CLOSING):
                    if failure is None:
                        await anext(self._events, None)  # lets the adapter put its connection back
                    await self._events.aclose()
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and self._deadline.cancelled():
                raise
            # Whatever an adapter's clean-up raises, the answer has been decided.
            log.warning("closing a stream of %s: %s", upstream.id, upstream.traceback_of(error))
        finally:
            upstream.ended()

    def _count(self, failure: BaseException | None) -> None:
        usage = self._journey.usage if failure is None else None
        known = failure if isinstance(failure, ProviderError) else None
        outcome = Outcome(
            seconds=time.monotonic() - self._began,
            failure=known.kind if known else None,
            cancelled=failure is not None and known is None,
            first_token=self._first_token,
            input_tokens=usage.input_tokens if usage else 0,
            output_tokens=usage.output_tokens if usage else 0,
        )
        self.upstream.meter.record(outcome, known.message if known else "")

    @staticmethod
    def _ending(failure: BaseException | None) -> str:
        if failure is None:
            return "finish"
        return f"error:{failure.kind}" if isinstance(failure, ProviderError) else "abort"


def _usage_of(event: Event) -> Usage | None:
    """What a Finish says was used. An adapter that says another end than that has failed."""
    if isinstance(event, Finish):
        return event.usage
    raise ProviderError(Kind.SERVER, f"its adapter said {event}")


def _reader_left() -> Stopped:
    return Stopped("the reader went away", status=499)
