"""Who may do what: API keys open the OpenAI routes, the admin key opens the provider routes."""

import contextlib
import hashlib
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from proxy.errors import AccessError
from proxy.settings import Settings


class Keys:
    """The operator's keys, kept as hashes. With none at all, Weir answers on a loopback address only."""

    def __init__(self, settings: Settings):
        self._open = not settings.guarded
        self._admin = [_hash(settings.admin_key.get_secret_value())] if settings.admin_key else []
        self._clients = [_hash(key.get_secret_value()) for key in settings.api_keys]

    def check_client(self, connection: HTTPConnection) -> None:
        """Raises AccessError unless the request may use models."""
        self._check(connection, self._clients, "WEIR_API_KEYS")

    def check_admin(self, connection: HTTPConnection) -> None:
        """Raises AccessError unless the request may see and change providers."""
        self._check(connection, self._admin, "WEIR_ADMIN_KEY")

    def _check(self, connection: HTTPConnection, allowed: list[bytes], variable: str) -> None:
        if self._open:
            _check_host(connection)
            return
        if not allowed:
            raise AccessError(f"this route is closed: {variable} is not set", status=403, code="route_closed")
        given = _given(connection)
        if given is None:
            raise AccessError("no API key: send it as `Authorization: Bearer <key>` or as `x-api-key`")
        digest = _hash(given)
        # Every key is compared, each in constant time: the time taken tells nothing about which one is close.
        if not sum(hmac.compare_digest(digest, known) for known in allowed):
            raise AccessError("this API key is not valid here")


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _given(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return (token.strip() if scheme.lower() == "bearer" else "") or connection.headers.get("x-api-key") or None


def _check_host(connection: HTTPConnection) -> None:
    """Without keys only this machine may ask; a foreign Host means a browser was led here by another site's DNS."""
    host, origin = connection.headers.get("host", ""), connection.headers.get("origin")
    if not _local(f"//{host}") or (origin is not None and not _local(origin)):
        raise AccessError(
            "without WEIR_API_KEYS and WEIR_ADMIN_KEY only requests to localhost are served", status=403, code="no_keys"
        )


def is_loopback(host: str | None) -> bool:
    """Whether `host`, a name or an address, can only mean this machine."""
    with contextlib.suppress(ValueError):
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    return False


def _local(url: str) -> bool:
    """Not so for the Origin `null`, which a sandboxed frame of any site can have."""
    with contextlib.suppress(ValueError):
        return is_loopback(urlsplit(url).hostname)
    return False


async def client(connection: HTTPConnection) -> None:
    """A dependency of the routes that use models (async: FastAPI would run a plain function in a thread)."""
    connection.app.state.keys.check_client(connection)


async def admin(connection: HTTPConnection) -> None:
    """A dependency of the routes that see and change providers."""
    connection.app.state.keys.check_admin(connection)
