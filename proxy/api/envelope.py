"""What every answer has: an id, the headers that say what became of it, and OpenAI's error shape if all else fails."""

import logging
import re
import secrets
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxy.api.responses import error_response
from proxy.errors import INTERNAL, WeirError

log = logging.getLogger(__name__)

_SANE = re.compile(r"[A-Za-z0-9._-]{1,128}")


def sane_id(given: object) -> str:
    """The id that a request was given, if it is a sane one; else a new one."""
    return given if isinstance(given, str) and _SANE.fullmatch(given) else secrets.token_hex(16)


class Envelope:
    """ASGI middleware. The id is the client's `x-request-id` if that is a sane one; routes find it in `state.id`.

    The wrapper around `send` is a plain function: a streamed token passes it without another coroutine.
    """

    def __init__(self, app: ASGIApp, draining: Callable[[], bool] = lambda: False):
        self._app = app
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = sane_id(dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1"))
        scope.setdefault("state", {})["id"] = request_id
        told = {b"x-request-id": request_id.encode(), b"x-weir-provider": b"none", b"x-weir-attempts": b"0"}
        started = False

        def tagged(message: Message):  # type: ignore[no-untyped-def]
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = [*message.get("headers", ())]
                given = {name for name, _ in headers}
                headers += [(name, value) for name, value in told.items() if name not in given]
                if self._draining():  # or the next request would meet a connection that is being closed
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            return send(message)

        try:
            await self._app(scope, receive, tagged)
        except ClientDisconnect:
            log.debug("request %s: the client went away while it sent its body", request_id)
        except Exception:
            log.exception("request %s failed", request_id)
            if not started:
                await error_response(WeirError(INTERNAL))(scope, receive, tagged)
