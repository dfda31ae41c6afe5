"""One request to a provider, over the session that all share, and what it says where it refuses."""

import asyncio
import contextlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from proxy.errors import Kind, ProviderError, redact
from proxy.provider import ProviderConfig
from proxy.retry_after import retry_after

READ_AHEAD = 16 * 1024  # bytes of an answer that wait here; then its provider waits
PATIENCE = 0.5  # seconds, for a body that has little more to say than we know


async def ask(
    session: aiohttp.ClientSession,
    config: ProviderConfig,
    method: str,
    url: str | URL,
    headers: Mapping[str, str],
    body: bytes,
    *,
    decompress: bool = True,
) -> aiohttp.ClientResponse:
    """What is answered, whatever that is. Raises ProviderError (connect) where nothing is.

    The names of `headers` are in lower case.
    """
    limit, trusting = config.timeouts.connect, session.trust_env
    # Compression would make the provider's server hold tokens back.
    ours = {**headers, "accept-encoding": "identity"}
    try:
        return await session.request(
            method,
            url,
            data=body or None,
            headers=None if trusting else ours,
            middlewares=(_signed(ours),) if trusting else (),
            timeout=_limits(limit),
            allow_redirects=False,  # one would carry the key elsewhere
            auto_decompress=decompress,  # some compress all the same
            read_bufsize=READ_AHEAD,
        )
    except TimeoutError:
        raise ProviderError(Kind.CONNECT, f"no connection within {limit:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise ProviderError(Kind.CONNECT, redact(str(error) or repr(error), config.secrets())) from None


@lru_cache
def _limits(connect: float) -> aiohttp.ClientTimeout:
    """Made once, not for each request; all other waits are the pipeline's."""
    return aiohttp.ClientTimeout(total=None, connect=connect)


def _signed(headers: Mapping[str, str]) -> aiohttp.ClientMiddlewareType:
    """Keeps a key of ~/.netrc, which a session reads where it trusts the environment, from taking the place of ours."""

    async def sign(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        request.headers.pop("authorization", None)
        request.headers.update(headers)
        return await send(request)

    return sign


def refusal(response: aiohttp.ClientResponse, body: str, config: ProviderConfig) -> ProviderError:
    """What an answer with that body is that is no stream."""
    status, said = response.status, redact(error_message(body), config.secrets())
    if status < 400:
        message = f"answered {status} {response.content_type} instead of an event stream: {said}"
        return ProviderError(Kind.GARBLED, message, upstream_status=status)
    kind, said, wait = Kind.of_status(status), said or response.reason or "", retry_after(response.headers)
    named = {name: redact(value, config.secrets()) for name, value in error_names(body).items()}
    return ProviderError(kind, said, upstream_status=status, retry_after=wait, **named)


def error_message(text: str) -> str:
    """What an error body says; vendors nest it in several ways. HTML says nothing worth repeating."""
    try:
        body: Any = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return "an HTML page" if text.lstrip().startswith("<") else text.strip()
    if isinstance(body, list) and body:  # Gemini
        body = body[0]
    while isinstance(body, dict):
        body = next((body[name] for name in ("error", "message", "Message", "detail") if body.get(name)), "")
    return body if isinstance(body, str) else text.strip()


def error_names(text: str) -> dict[str, str]:
    """The `code` and the `param` of an error body: by these, clients decide what to do next."""
    with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        error = msgspec.json.decode(text)["error"]
        return names(error.get("code"), error.get("param"))
    return {}


def names(code: Any, param: Any) -> dict[str, str]:
    """Those that are names; many a vendor repeats its status as the code."""
    given = {"code": code, "param": param}
    return {name: it for name, it in given.items() if isinstance(it, str) and it and not it.isdigit()}


async def rest_of(response: aiohttp.ClientResponse) -> str:
    """What else comes of a body soon, up to 64 KB or until it breaks."""
    data = b""
    try:
        async with asyncio.timeout(PATIENCE):
            while len(data) < 65536 and (piece := await response.content.readany()):
                data += piece
    except (TimeoutError, aiohttp.ClientError, ConnectionError):
        pass  # what matters is known; the connection will not be used again
    return data.decode(errors="replace")
