"""Who may do what: API keys open the OpenAI routes, the admin key opens the provider routes."""

import base64
import contextlib
import hashlib
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from proxy.errors import AccessError
from proxy.session.conversation import owner
from proxy.settings import Settings

KEY_PROTOCOL = "weir.key."  # how a WebSocket subprotocol begins that is a key


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

    def traced(self, connection: HTTPConnection) -> bool:
        """Whether an admin wants to be told what happens to this request: `x-weir-debug` carries the admin key.

        Raises AccessError for a wrong one. Without any keys, whatever it carries will do.
        """
        given = connection.headers.get("x-weir-debug")
        if given is None or self._open:
            return given is not None
        if not sum(hmac.compare_digest(_hash(given), known) for known in self._admin):
            raise AccessError("x-weir-debug must carry the admin key", status=403, code="not_an_admin")
        return True

    def _check(self, connection: HTTPConnection, allowed: list[bytes], variable: str) -> None:
        if self._open:
            _check_host(connection)
            return
        if not allowed:
            raise AccessError(f"this route is closed: {variable} is not set", status=403, code="route_closed")
        given = key_of(connection)
        if given is None:
            raise AccessError("no API key: send it as `Authorization: Bearer <key>` or as `x-api-key`")
        digest = _hash(given)
        # Every key is compared, each in constant time: the time taken tells nothing about which one is close.
        if not sum(hmac.compare_digest(digest, known) for known in allowed):
            raise AccessError("this API key is not valid here")


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def key_of(connection: HTTPConnection) -> str | None:
    """The key that came with the request, whether or not it is a right one."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    named = connection.headers.get("x-api-key") or connection.headers.get("api-key")  # the latter is Azure's
    return bearer or named or _offered(connection)


def _offered(connection: HTTPConnection) -> str | None:
    """The key of a browser, which can set no headers on a WebSocket: a subprotocol, in base64url without padding."""
    for name in connection.scope.get("subprotocols", ()):
        if name.startswith(KEY_PROTOCOL):
            with contextlib.suppress(ValueError):
                return base64.urlsafe_b64decode(name.removeprefix(KEY_PROTOCOL) + "==").decode()
    return None


def owner_of(connection: HTTPConnection, user_id: str | None = None) -> str:
    """Whose a session or a stream is: the key's that was given, and one user's of it."""
    return owner(key_of(connection), user_id)


def _check_host(connection: HTTPConnection) -> None:
    """Without keys only this machine may ask; a foreign Host means a browser was led here by another site's DNS."""
    host, origin = connection.headers.get("host", ""), connection.headers.get("origin")
    if not is_loopback(host_of(f"//{host}")) or (origin is not None and not is_loopback(host_of(origin))):
        raise AccessError(
            "without WEIR_API_KEYS and WEIR_ADMIN_KEY only requests to localhost are served", status=403, code="no_keys"
        )


def is_loopback(host: str | None) -> bool:
    """Whether `host`, a name or an address, can only mean this machine."""
    with contextlib.suppress(ValueError):
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    return False


def host_of(url: str) -> str | None:
    """None for the Origin `null`, which a sandboxed frame of any site can have."""
    with contextlib.suppress(ValueError):
        return urlsplit(url).hostname
    return None


async def client(connection: HTTPConnection) -> None:
    """A dependency of the routes that use models (async: FastAPI would run a plain function in a thread)."""
    connection.state.keys.check_client(connection)


async def admin(connection: HTTPConnection) -> None:
    """A dependency of the routes that see and change providers."""
    connection.state.keys.check_admin(connection)
