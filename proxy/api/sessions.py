"""GET and DELETE /api/streaming/sessions: what was said in a conversation, and who answered.

Whose it is follows from the key and `user_id` of the request: anybody else's sessions do not exist.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from msgspec import to_builtins
from starlette.responses import Response

from proxy.api.auth import client, owner_of
from proxy.api.request import Request
from proxy.api.responses import json_response
from proxy.api.route import Route
from proxy.errors import RequestError
from proxy.session.conversation import Session
from proxy.state.sessions import SessionRef

router = APIRouter(route_class=Route, tags=["sessions"], dependencies=[Depends(client)])

_PRIVATE = {"cache-control": "no-store"}


@router.get("/api/streaming/sessions")
async def list_sessions(
    request: Request,
    user_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[float | None, Query(allow_inf_nan=False)] = None,
) -> Response:
    """The sessions of a user, the last used first. For the next page, `before` is the last one's `updated`."""
    found = await request.weir.sessions.recent(owner_of(request, user_id), limit, before)
    return json_response({"sessions": found}, headers=_PRIVATE)


@router.get("/api/streaming/sessions/{session_id}")
async def get_session(request: Request, session_id: str, user_id: str | None = None) -> Response:
    """Its turns, with their messages and answers, the feedback on them, and what they came to."""
    return json_response(_shown(await _load(request, session_id, user_id)), headers=_PRIVATE)


@router.get("/api/streaming/sessions/{session_id}/export")
async def export_session(request: Request, session_id: str, user_id: str | None = None) -> Response:
    """The same, to be saved as a file."""
    session = await _load(request, session_id, user_id)
    name = f"session-{session.id.replace(':', '_')}.json"
    headers = {**_PRIVATE, "content-disposition": f'attachment; filename="{name}"'}
    return json_response(_shown(session), headers=headers)


@router.delete("/api/streaming/sessions/{session_id}")
async def delete_session(request: Request, session_id: str, user_id: str | None = None) -> Response:
    """Forgets it, on every replica. An answer that is on its way reaches its reader, and is not kept."""
    if not await request.weir.sessions.delete(_ref(request, session_id, user_id)):
        raise _unknown(session_id)
    return json_response({"id": session_id, "deleted": True})


def _ref(request: Request, session_id: str, user_id: str | None) -> SessionRef:
    return SessionRef.of(owner_of(request, user_id), session_id)


async def _load(request: Request, session_id: str, user_id: str | None) -> Session:
    session = await request.weir.sessions.load(_ref(request, session_id, user_id))
    if session is None:
        raise _unknown(session_id)
    return session


def _shown(session: Session) -> dict[str, Any]:
    return {"totals": session.totals(), **to_builtins(session)}


def _unknown(session_id: str) -> RequestError:
    message = f"there is no session {session_id!r} of this key and user"
    return RequestError(message, status=404, code="session_not_found")
