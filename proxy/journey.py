"""What became of one request, from the first attempt to the end of its stream."""

import logging
import time
from collections.abc import Callable

from proxy.deadline import Deadline
from proxy.errors import ProviderError
from proxy.events import Usage

log = logging.getLogger(__name__)

STEERED = "steered"  # what a deadline is told when the reader wants the answer to go on otherwise


class Journey:
    """One request on its way. `failures`: provider id -> its last error, in the order tried; times in seconds.

    A request that several sources answer has a branch for each, and tells what became of them all.
    """

    def __init__(
        self, request_id: str, model: str, mode: str = "standard", clock: Callable[[], float] = time.monotonic
    ):
        self.id = request_id
        self.model = model
        self.mode = mode
        self.provider = "none"
        self.attempts = 0
        self.failures: dict[str, ProviderError] = {}
        self.usage: Usage | None = None
        self.bytes = 0  # sent to the reader
        self.end = "unfinished"
        self.deadline = Deadline()
        self.stopped: str | None = None  # why it was told to end
        self.branches: list[Journey] = []
        self.traced = False  # an admin wants to know what happens to this one
        self._clock = clock
        self._began = clock()
        self.first_token: float | None = None
        self.seconds = 0.0  # known when it is over

    def asks(self, provider_id: str) -> None:
        """Another attempt begins."""
        self.provider = provider_id
        self.attempts += 1
        self.note("asks %s, attempt %d", provider_id, self.attempts)

    def commits(self) -> None:
        """The client is about to see the first part of an answer."""
        self.first_token = self._clock() - self._began
        self.note("%s answers, after %.0f ms", self.provider, self.first_token * 1000)

    def failed(self, provider_id: str, failure: ProviderError) -> None:
        """A provider has been given up."""
        failure.__traceback__ = failure.__context__ = None  # they would keep the request, for as long as this is kept
        self.failures[provider_id] = failure
        self.note("%s failed: %s: %s", provider_id, failure.kind, failure.message)

    def note(self, what: str, *details: object) -> None:
        """Says at DEBUG what happens; at INFO where an admin asked for it. Never called for a token."""
        level = logging.INFO if self.traced else logging.DEBUG
        if log.isEnabledFor(level):
            log.log(level, f"request %s: {what}", self.id, *details)

    def branch(self, model: str) -> "Journey":
        """The part of this request that one of its sources answers."""
        branch = Journey(self.id, model, self.mode, self._clock)
        branch.traced = self.traced
        self.branches.append(branch)
        if self.stopped is not None:
            branch.stop(self.stopped)
        elif self.deadline.stopped is not None:
            branch.interrupt()
        return branch

    def over(self) -> None:
        """Its answer has ended; the rest is tidying up."""
        self.seconds = self._clock() - self._began

    def stop(self, reason: str) -> None:
        """Ends the request wherever it is; `reason` is told to whoever still listens."""
        if self.stopped is None:
            self.stopped = reason
            self.note("is stopped: %s", reason)
        for journey in (self, *self.branches):
            journey.deadline.stop(reason)
            journey.stopped = self.stopped

    def interrupt(self) -> None:
        """Breaks off what the provider says, for the request to go on otherwise."""
        self.note("is steered")
        for journey in (self, *self.branches):
            journey.deadline.stop(STEERED)

    def headers(self) -> dict[str, str]:
        self._gather()
        return {"x-request-id": self.id, "x-weir-provider": self.provider, "x-weir-attempts": str(self.attempts)}

    def close(self) -> None:
        """Writes the one line a request leaves in the log."""
        self._gather()
        for journey in (self, *self.branches):
            journey.deadline.close()
        self.over()
        if not log.isEnabledFor(logging.INFO):
            return
        usage = self.usage or Usage()
        failed = " ".join(f"{name}={failure.kind}" for name, failure in self.failures.items())
        log.info(
            "request %s model=%.200r mode=%s provider=%s attempts=%d end=%s first_ms=%s ms=%.0f tokens=%d/%d bytes=%d"
            "%s",
            self.id,
            self.model,
            self.mode,
            self.provider,
            self.attempts,
            self.end,
            "-" if self.first_token is None else f"{self.first_token * 1000:.0f}",
            self.seconds * 1000,
            usage.input_tokens,
            usage.output_tokens,
            self.bytes,
            f" failed: {failed}" if failed else "",
        )

    def _gather(self) -> None:
        """Tells of the branches as of one."""
        for branch in self.branches:
            self.failures |= branch.failures
        if self.branches:
            self.provider = ",".join(branch.provider for branch in self.branches)
            self.attempts = sum(branch.attempts for branch in self.branches)
            known = [branch.first_token for branch in self.branches if branch.first_token is not None]
            self.first_token = min(known, default=None)
