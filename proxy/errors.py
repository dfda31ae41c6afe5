"""Everything that can go wrong, as eight classes.

WeirError                   status, code, message: what the client is told
├── RequestError      4xx   the client's mistake; `param` names the field
├── AccessError   401, 403  no key, a wrong key, or a route that is closed
├── ConfigError       400   a wrong providers.yaml or registration; `problems` names every mistake
├── StoreAway         503   Redis does not answer and this request needs it
├── Stopped      499, 503   the client went away, or Weir shuts down, before there was an answer
├── ProviderError           one attempt at one provider failed; `kind` decides what happens next
└── NoAnswer   429, 5xx     every provider failed; `failures` says what each of them answered
"""

import math
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """Why an attempt at a provider failed."""

    CONNECT = "connect"  # refused, unreachable, TLS, reset before an answer
    TIMEOUT = "timeout"  # one of the provider's four time limits
    SERVER = "server"  # 5xx, or an error inside a 200 stream
    CUT = "cut"  # the stream ended without saying that it was complete
    GARBLED = "garbled"  # not the protocol: HTML with a 200, broken JSON
    AUTH = "auth"  # 401, 402, 403 on the operator's own key
    CONFIG = "config"  # it cannot work as it is set up, or what it needs is not installed
    RATE_LIMIT = "rate_limit"  # 429
    BUSY = "busy"  # 408, 409
    MISSING = "missing"  # 404: the provider does not know the model
    REJECTED = "rejected"  # any other 4xx: the request itself is at fault

    @property
    def retryable(self) -> bool:
        """The same request may succeed at the same provider a moment later."""
        return self not in (Kind.AUTH, Kind.CONFIG, Kind.MISSING, Kind.REJECTED)

    @property
    def falls_back(self) -> bool:
        """Another provider may well answer."""
        return self is not Kind.REJECTED

    @property
    def trips(self) -> bool:
        """Counts towards leaving the provider out (see `circuit.py`)."""
        return self not in (Kind.RATE_LIMIT, Kind.BUSY, Kind.MISSING, Kind.REJECTED)

    @classmethod
    def of_status(cls, status: int) -> "Kind":
        """The kind of an HTTP error status, 400 to 599."""
        return _KIND_OF_STATUS.get(status) or (cls.SERVER if status >= 500 else cls.REJECTED)


_KIND_OF_STATUS = {
    401: Kind.AUTH,
    402: Kind.AUTH,
    403: Kind.AUTH,
    404: Kind.MISSING,
    408: Kind.BUSY,
    409: Kind.BUSY,
    424: Kind.SERVER,  # Bedrock's model has failed, not its client
    429: Kind.RATE_LIMIT,
}


INTERNAL = "an internal error; the log of this server has the details"  # what is not for clients' eyes


class WeirError(Exception):
    """Something the client must be told. `headers` go on the answer, if there still is one to head."""

    status = 500
    code = "internal_error"

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.message = message
        self.status = status or self.status
        self.code = code or self.code
        self.param = param
        self.headers: dict[str, str] = {}

    @property
    def type(self) -> str:
        """OpenAI's coarse `error.type` for this status."""
        names = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        return names.get(self.status) or ("server_error" if self.status >= 500 else "invalid_request_error")

    def body(self) -> dict[str, Any]:
        """The error as OpenAI writes it: `{"error": {"message", "type", "param", "code"}}`."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class RequestError(WeirError):
    status = 400
    code = "invalid_request"


class AccessError(WeirError):
    status = 401
    code = "invalid_api_key"


class ConfigError(WeirError):
    """A configuration that cannot be used. Nothing was changed."""

    status = 400
    code = "invalid_config"

    def __init__(self, problems: Sequence[str], code: str | None = None):
        super().__init__("; ".join(problems), code=code)
        self.problems = list(problems)


class StoreAway(WeirError):
    status = 503
    code = "store_unavailable"

    def __init__(self, what: str):
        super().__init__(f"{what} needs Redis, which does not answer; look whether it was done before you try again")


class Stopped(WeirError):
    """Somebody ended the request before there was an answer. Nobody reads the 499 of a client that went away."""

    status = 503
    code = "stopped"


class ProviderError(WeirError):
    """One attempt at one provider failed.

    `upstream_status` is the provider's HTTP status, where it gave one; `retry_after` is in seconds; `code` and `param`
    are the provider's own, where it names the client's mistake.
    """

    status = 502
    code = "provider_error"

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        upstream_status: int | None = None,
        retry_after: float | None = None,
        code: str | None = None,
        param: str | None = None,
    ):
        super().__init__(message, code=code, param=param)
        self.kind = kind
        self.upstream_status = upstream_status
        self.retry_after = retry_after


class NoAnswer(WeirError):
    """No provider could serve the request. `failures`: provider id -> its last error, in the order tried."""

    status = 502
    code = "all_providers_failed"

    def __init__(self, failures: dict[str, ProviderError]):
        said = "; ".join(f"{name}: {_told(failure)}" for name, failure in failures.items())
        super().__init__(f"no provider could answer: {said}")
        self.failures = failures
        last = list(failures.values())[-1]
        kinds = {failure.kind for failure in failures.values()}
        if last.kind is Kind.REJECTED or kinds == {Kind.MISSING}:
            self.message = last.message  # the client's own mistake, in the provider's words
            self.status, self.param = last.upstream_status or 400, last.param
            self.code = last.code if last.code != ProviderError.code else "provider_rejected"
        elif kinds == {Kind.RATE_LIMIT}:
            self.status, self.code = 429, "rate_limited"
        elif kinds == {Kind.TIMEOUT}:
            self.status, self.code = 504, "provider_timeout"
        waits = [failure.retry_after for failure in failures.values() if failure.retry_after is not None]
        if waits and self.status in (429, 502):
            self.headers["retry-after"] = str(max(1, math.ceil(min(waits))))


def _told(failure: ProviderError) -> str:
    status = f" {failure.upstream_status}" if failure.upstream_status else ""
    return f"{failure.kind}{status} ({failure.message})"


_KEYLIKE = re.compile(
    r"""(?ix) \b(?: sk | pk | rk | gsk | csk | xai | pplx | nvapi ) [-_] [\w*.-]{6,}
    | \b(?: AIza | AKIA | key[-_]\w{10} ) [\w*.-]{8,}
    | \bBearer \s+ [\w*.~+/=-]{8,}
    | (?<![\w.-]) [\w.-]* \*{3,} [\w*.-]*  # whatever a vendor half hides"""
)


def redact(text: str, secrets: Sequence[str] = (), limit: int = 500) -> str:
    """`text` without any of `secrets` or anything that looks like a key, cut to `limit` characters.

    Vendors repeat keys in part ("Incorrect API key provided: sk-ab***yz"), so the pattern counts as much as the value.
    """
    for secret in sorted(secrets, key=len, reverse=True):  # one may hold another
        if len(secret) >= 4:
            text = text.replace(secret, "[redacted]")
    text = _KEYLIKE.sub("[redacted]", text)
    return text if len(text) <= limit else text[:limit] + "..."
