"""What became of one request, from the first attempt to the end of its stream."""

import logging
import time
from collections.abc import Callable

from proxy.deadline import Deadline
from proxy.errors import ProviderError
from proxy.events import Usage

log = logging.getLogger(__name__)


class Journey:
    """One request on its way. `failures`: provider id -> its last error, in the order tried; times in seconds."""

    def __init__(self, request_id: str, model: str, clock: Callable[[], float] = time.monotonic):
        self.id = request_id
        self.model = model
        self.provider = "none"
        self.attempts = 0
        self.failures: dict[str, ProviderError] = {}
        self.usage: Usage | None = None
        self.end = "unfinished"
        self.deadline = Deadline()
        self._clock = clock
        self._began = clock()
        self._first: float | None = None

    def asks(self, provider_id: str) -> None:
        """Another attempt begins."""
        self.provider = provider_id
        self.attempts += 1

    def commits(self) -> None:
        """The client is about to see the first part of an answer."""
        self._first = self._clock() - self._began

    def stop(self, reason: str) -> None:
        """Ends the request wherever it is; `reason` is told to whoever still listens."""
        self.deadline.stop(reason)

    def headers(self) -> dict[str, str]:
        return {"x-request-id": self.id, "x-weir-provider": self.provider, "x-weir-attempts": str(self.attempts)}

    def close(self) -> None:
        """Writes the one line a request leaves in the log."""
        self.deadline.close()
        if not log.isEnabledFor(logging.INFO):
            return
        usage = self.usage or Usage()
        failed = " ".join(f"{name}={failure.kind}" for name, failure in self.failures.items())
        log.info(
            "request %s model=%.200r provider=%s attempts=%d end=%s first_ms=%s ms=%.0f tokens=%d/%d%s",
            self.id,
            self.model,
            self.provider,
            self.attempts,
            self.end,
            "-" if self._first is None else f"{self._first * 1000:.0f}",
            (self._clock() - self._began) * 1000,
            usage.input_tokens,
            usage.output_tokens,
            f" failed: {failed}" if failed else "",
        )
