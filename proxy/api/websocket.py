"""GET /api/streaming/ws/{user_id}: the handshake of a WebSocket. Who may not come in is told so before it opens."""

import secrets

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from proxy.api.auth import host_of, is_loopback, owner_of
from proxy.api.responses import error_response
from proxy.api.route import Route
from proxy.api.socket import Socket
from proxy.errors import AccessError, RequestError, WeirError
from proxy.settings import Settings
from proxy.state.sessions import SessionRef

PROTOCOL = "weir"  # what a browser offers, beside its key, and what the server chooses
LONGEST_USER = 200  # characters

router = APIRouter(route_class=Route, tags=["streaming"])


@router.websocket("/api/streaming/ws/{user_id}")
async def streaming_socket(websocket: WebSocket, user_id: str) -> None:
    """The chats of `user_id`, in session `session_id` of the query, or in a new one."""
    try:
        check_origin(websocket, websocket.state.weir.settings)
        websocket.state.keys.check_client(websocket)
        traced = websocket.state.keys.traced(websocket)
        session_id = _session_of(websocket, user_id)
    except WeirError as error:
        await _refuse(websocket, error)
        return
    await websocket.accept(PROTOCOL if PROTOCOL in websocket.scope["subprotocols"] else None)
    await Socket(websocket, user_id, session_id, traced=traced).run()


@router.get("/api/streaming/ws/{user_id}")
async def not_a_socket(request: Request, user_id: str) -> Response:
    """What came here has lost its `Upgrade`, usually to a proxy on the way."""
    told = "this is a WebSocket; if you did open one, a proxy on the way does not pass on `Upgrade` and `Connection`"
    error = RequestError(told, status=426, code="upgrade_required")
    return error_response(error, {"upgrade": "websocket", "connection": "upgrade"})


def check_origin(websocket: WebSocket, settings: Settings) -> None:
    """A browser lets every page open a socket to every host, and names the page. Raises AccessError (403)."""
    origin = websocket.headers.get("origin")
    if origin is None or {"*", origin.lower()} & set(settings.origins):
        return
    page, here = host_of(origin), host_of("//" + websocket.headers.get("host", ""))
    if page is None or (page != here and not (is_loopback(page) and is_loopback(here))):
        told = f"pages of {origin[:100]!r} may not connect: WEIR_ORIGINS does not name them"
        raise AccessError(told, status=403, code="foreign_origin")


def _session_of(websocket: WebSocket, user_id: str) -> str:
    if len(user_id) > LONGEST_USER:
        raise RequestError(f"user_id: at most {LONGEST_USER} characters", param="user_id")
    session_id = websocket.query_params.get("session_id") or secrets.token_urlsafe(16)
    return SessionRef.of(owner_of(websocket, user_id), session_id).id


async def _refuse(websocket: WebSocket, error: WeirError) -> None:
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(error_response(error))
    else:  # a server that can say no more than 403
        await websocket.close(reason=error.message)
