"""The routes that tokens take, reached past FastAPI's dispatch, which costs them 0.1 ms and a dozen frames a token."""

from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.api.auth import client
from proxy.api.chat import chat_completions
from proxy.api.mount import Mount
from proxy.api.request import Request
from proxy.api.route import Endpoint, answered
from proxy.api.streaming import streaming_chat
from proxy.api.ui_chat import ui_chat

ROUTES: Mapping[str, Endpoint] = {
    "/v1/chat/completions": chat_completions,
    "/api/streaming/chat": streaming_chat,
    "/api/chat": ui_chat,
}


class Express:
    """ASGI middleware: the innermost, so that whatever an application puts around its routes is around these too.

    They are FastAPI's routes all the same, for whoever mounts them elsewhere and for the schema.
    """

    def __init__(self, app: ASGIApp, mount: Mount):
        self._app = app
        self._mount = mount

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in ROUTES:
            await self._app(scope, receive, send)
            return
        endpoint = ROUTES[scope["path"]]

        async def run(request: Request) -> Response:
            await self._mount.attach(request)
            await client(request)
            return await endpoint(request)

        response = await answered(scope, receive, run)
        await response(scope, receive, send)
