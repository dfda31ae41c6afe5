"""Headers that ask for a durable stream. An Idempotency-Key names one: asked again, it is the same stream.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

import contextlib
import hashlib

import msgspec

from proxy.api.request import Request
from proxy.errors import RequestError
from proxy.state.stream_log import Once

LONGEST = 255  # characters


def truth(name: str, value: str) -> bool:
    """Raises RequestError for what is neither."""
    if value.lower() not in ("true", "false"):
        raise RequestError(f"{name}: must be true or false", param=name)
    return value.lower() == "true"


async def once_of(request: Request) -> Once | None:
    """The request's key, and the digest of what is asked; None if it has no key. Raises RequestError for a bad one."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= LONGEST:
        raise RequestError(f"Idempotency-Key: 1 to {LONGEST} characters", param="Idempotency-Key")
    return Once(_digest(key.encode("utf-8", "surrogateescape")), await _asked(request))


async def _asked(request: Request) -> str:
    """The same for the same JSON, however it is spaced or ordered."""
    body = await request.body()
    with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):  # whoever parses it says what is wrong
        body = msgspec.json.encode(msgspec.json.decode(body), order="sorted")
    asked = [request.url.path, request.headers.get("x-weir-mode", ""), body]
    return _digest(msgspec.json.encode(asked))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
