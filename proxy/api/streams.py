"""POST /api/streaming/streams/{id}/...: what a reader of server-sent events may say back, on any replica."""

from fastapi import APIRouter, Depends
from starlette.responses import Response

from proxy.api.auth import client, owner_of
from proxy.api.request import Request
from proxy.api.responses import json_response
from proxy.api.route import Route
from proxy.pipeline.control import Action, Control
from proxy.request import parse_object

router = APIRouter(route_class=Route, tags=["streaming"], dependencies=[Depends(client)])


@router.post("/api/streaming/streams/{stream_id}/{action}")
async def control(request: Request, stream_id: str, action: Action) -> Response:
    """Answers with the position in the stream at which the control took effect."""
    data = parse_object(await request.body() or b"{}")
    return json_response(await request.weir.controls.send(stream_id, owner_of(request), Control.read(action, data)))
