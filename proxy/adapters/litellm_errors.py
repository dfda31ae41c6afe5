"""Whatever LiteLLM and the vendors' SDKs raise, named once in our terms.

What happens on the wire never gets here: `litellm_call` has named it, where status, headers and cause are still whole.
Left are requests that LiteLLM cannot translate, errors inside a 200 stream, and vendors it reaches in other ways.
"""

import re
from collections.abc import Iterator

import httpx

from proxy.adapters.http import error_message, names
from proxy.errors import Kind, ProviderError, redact
from proxy.provider import ProviderConfig
from proxy.retry_after import retry_after


def failure(error: Exception, config: ProviderConfig, asked: bool, started: bool, ready: bool) -> ProviderError:
    """`error` as a ProviderError. `asked`: the vendor may have got the request; `started`: it began to answer;
    `ready`: all that is the operator's was there to ask it.
    """
    status = getattr(error, "status_code", None)
    status = status if isinstance(status, int) and 400 <= status < 600 else None
    causes, said = list(_causes(error)), redact(_message(error), config.secrets())
    stumbled = isinstance(causes[-1], TypeError | KeyError | AttributeError | IndexError)
    if (stumbled or (ready and (status or 500) >= 500)) and not asked and not started:
        # LiteLLM stumbles over a body of the wrong shape, and reports a server error for a server nobody has asked.
        said = f"the request cannot be translated for {config.provider_type}: {said}"
        return ProviderError(Kind.REJECTED, said, upstream_status=400)
    named = next(filter(None, (names(getattr(it, "code", None), getattr(it, "param", None)) for it in causes)), {})
    kind = _kind(causes, started) or (Kind.of_status(status) if status else Kind.SERVER)
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or getattr(error, "litellm_response_headers", None)
    return ProviderError(
        kind,
        said,
        # LiteLLM makes up a status for what has none: a broken connection, an error in the middle of a stream.
        upstream_status=None if started or kind in (Kind.CONNECT, Kind.TIMEOUT, Kind.CONFIG) else status,
        retry_after=retry_after(headers) if headers else None,
        **{name: redact(value, config.secrets()) for name, value in named.items()},
    )


def _kind(causes: list[BaseException], started: bool) -> Kind | None:
    """What kind of failure the exceptions speak of, where their types tell more than a status does."""
    for cause in causes:
        if isinstance(cause, ImportError):
            return Kind.CONFIG  # a package that LiteLLM needs for this vendor, and does not bring along
        if isinstance(cause, httpx.ConnectTimeout | httpx.ConnectError | httpx.ProxyError):
            return Kind.CUT if started else Kind.CONNECT
        if isinstance(cause, httpx.TimeoutException):
            return Kind.TIMEOUT
        if isinstance(cause, httpx.TransportError):
            return Kind.CUT if started else Kind.CONNECT
    if started and str(causes[0]).startswith("Error parsing chunk"):
        return Kind.GARBLED
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error`, what it was raised from, and so on down to what happened first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


# LiteLLM's own words around the vendor's: its exceptions' names before them; advice and a traceback after them.
_NOISE = re.compile(r"^(?:(?:litellm\.)?\w*(?:Error|Exception|Timeout)\b[\s:\-]+)+")
_ADVICE = re.compile(r"\. To drop these|, for model=|\n")


def _message(error: Exception) -> str:
    """What the vendor said, or what LiteLLM found wrong, in one line."""
    said = getattr(error, "message", None) or str(error) or repr(error)
    said = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return _ADVICE.split(error_message(_NOISE.sub("", said)) or said)[0].strip()
