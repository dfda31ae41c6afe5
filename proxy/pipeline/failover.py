"""Try them until one commits: retries at one provider, then the next one. Nothing of it shows to the client."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import tenacity

from proxy.errors import Kind, NoAnswer, ProviderError, Stopped
from proxy.journey import Journey
from proxy.pipeline.call import Call
from proxy.pipeline.routing import Route
from proxy.provider import Retry
from proxy.request import ChatRequest
from proxy.upstream import Upstream

Sleep = Callable[[float], Awaitable[None]]


class Probes(Protocol):
    """Who may ask a provider that was left out: one request in the whole fleet."""

    async def claim(self, provider_id: str, generation: int) -> bool: ...

    async def release(self, provider_id: str, generation: int) -> None: ...


class RetryBudget(tenacity.stop.stop_base):
    """Keeps a struggling provider from being buried in retries: at most a fifth of what runs, and three at least.

    It is per replica, and for retries only: falling back to another provider is not held back.
    """

    SHARE = 5  # one request in so many
    LEAST = 3

    def __init__(self) -> None:
        self.running = 0  # requests
        self.retrying = 0  # from the first moment of the back-off

    @property
    def is_spent(self) -> bool:
        return self.retrying >= max(self.LEAST, self.running // self.SHARE)

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        return self.is_spent


class Failover:
    def __init__(self, probes: Probes, sleep: Sleep = asyncio.sleep):
        self.budget = RetryBudget()
        self._probes = probes
        self._sleep = sleep

    async def open(self, request: ChatRequest, routes: Sequence[Route], journey: Journey) -> Call:
        """The first call that commits. Raises NoAnswer when every provider has failed, Stopped if told to stop."""
        for upstream, _ in routes:
            upstream.hold()
        try:
            return await self._first(request, routes, journey)
        finally:
            for upstream, _ in routes:
                upstream.let_go()

    async def _first(self, request: ChatRequest, routes: Sequence[Route], journey: Journey) -> Call:
        for number, route in enumerate(routes, start=1):
            if not await self._admits(route[0], journey):
                continue
            if call := await self._try(route, request, journey, others=routes[number:]):
                return call
        # Where all wait for other requests' probes, it is better to ask than to refuse.
        if not journey.failures and (call := await self._try(routes[0], request, journey, others=())):
            return call
        raise NoAnswer(journey.failures)

    async def _admits(self, upstream: Upstream, journey: Journey) -> bool:
        """A provider that was left out gets one probe, of the whole fleet; everyone else goes past it."""
        circuit = upstream.circuit
        if not circuit.verdict.open:
            return True
        if not circuit.usable(upstream.clock()):
            return False
        circuit.probe = journey  # at once, so that no other request of this replica asks too
        claimed = False
        try:
            claimed = await self._probes.claim(upstream.id, circuit.generation)
        finally:
            if not claimed and circuit.probe is journey:
                circuit.probe = None
                circuit.ask_again = upstream.clock() + 1
        return claimed

    async def _try(self, route: Route, request: ChatRequest, journey: Journey, others: Sequence[Route]) -> Call | None:
        upstream = route[0]
        generation = upstream.circuit.generation
        try:
            return await self._ask(route, request, journey, others)
        except ProviderError as error:
            journey.failed(upstream.id, error)
            if not error.kind.falls_back:
                raise NoAnswer(journey.failures) from None
            return None
        finally:
            if upstream.circuit.probe is journey:  # it told nothing: a cancel, or an error that is not its fault
                upstream.circuit.probe = None
                await self._probes.release(upstream.id, generation)

    async def _ask(self, route: Route, request: ChatRequest, journey: Journey, others: Sequence[Route]) -> Call:
        """Asks one provider until it commits or its retries are used up. Raises its last ProviderError."""
        try:
            return await self._attempt(route, request, journey)  # nearly all: tenacity costs them 30 us
        except ProviderError as error:
            first = error.with_traceback(None)  # it would hold this frame, which holds it
        retry, circuit = request.options.retry_of(route[0].config), route[0].circuit
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(
                lambda error: not circuit.verdict.open and _worth_it(error, retry, others)
            ),
            stop=tenacity.stop_any(tenacity.stop_after_attempt(retry.max_attempts), self.budget),
            wait=_Patience(retry),
            sleep=lambda seconds: self._wait(seconds, journey),
            reraise=True,
        ):
            with attempt:
                if attempt.retry_state.attempt_number == 1:
                    raise first
                try:
                    return await self._attempt(route, request, journey)
                finally:
                    self.budget.retrying -= 1
        raise AssertionError("tenacity ends with a result or an exception")

    async def _attempt(self, route: Route, request: ChatRequest, journey: Journey) -> Call:
        upstream, model = route
        if (rest := upstream.rests_until - upstream.clock()) > 0:
            raise ProviderError(
                Kind.RATE_LIMIT, f"asked for {rest:.1f} s of rest", upstream_status=429, retry_after=rest
            )
        call = Call(upstream, model, request, journey)
        await call.open()
        return call

    async def _wait(self, seconds: float, journey: Journey) -> None:
        journey.note("waits %.2f s before it asks again", seconds)
        self.budget.retrying += 1  # until the attempt that follows is over
        journey.deadline.restart(seconds + 1)
        try:
            journey.deadline.expect(seconds + 1)
            await self._sleep(seconds)
            journey.deadline.received()
        except asyncio.CancelledError:
            interrupted, stopped = journey.deadline.interrupted(), journey.deadline.stopped
            if interrupted and stopped is None:
                return  # the process slept longer than we meant to
            self.budget.retrying -= 1
            if interrupted and stopped is not None:
                journey.end = "abort"
                raise Stopped(stopped) from None
            raise


class _Patience(tenacity.wait.wait_base):
    """Exponential back-off with full jitter, and never less than the provider asked for."""

    def __init__(self, retry: Retry):
        self._backoff = tenacity.wait_random_exponential(multiplier=retry.initial, max=retry.maximum)

    def __call__(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, ProviderError) else None
        return max(self._backoff(state), asked or 0.0)


def _worth_it(error: BaseException, retry: Retry, others: Sequence[Route]) -> bool:
    """Whether to ask the same provider again: not when it wants more patience than we have, or others are free."""
    if not isinstance(error, ProviderError) or not error.kind.retryable:
        return False
    if error.retry_after is None:
        return True
    return error.retry_after <= retry.maximum and not any(upstream.usable() for upstream, _ in others)
