"""One stream, by its id and on any replica: what its reader says back, and, of a durable one, all of it once more."""

from fastapi import APIRouter, Depends
from starlette.responses import Response

from proxy.api.answer import reading
from proxy.api.auth import client, owner_of
from proxy.api.request import Request
from proxy.api.responses import json_response
from proxy.api.route import Route
from proxy.pipeline.control import Action, Control
from proxy.position import read_position
from proxy.request import parse_object
from proxy.streaming_request import Format

router = APIRouter(route_class=Route, tags=["streams"], dependencies=[Depends(client)])


@router.post("/api/streaming/streams/{stream_id}/{action}")
async def control(request: Request, stream_id: str, action: Action) -> Response:
    """Answers with the position in the stream at which the control took effect."""
    data = parse_object(await request.body() or b"{}")
    return json_response(await request.weir.controls.send(stream_id, owner_of(request), Control.read(action, data)))


@router.get("/v1/streams/{stream_id}")
async def read_stream(
    request: Request, stream_id: str, after: str | None = None, format: Format = "openai"
) -> Response:
    """Exactly what comes after a position: `Last-Event-ID`, as EventSource sends it, or else `after`; to the end."""
    position, traced = read_position(request.headers.get("last-event-id") or after), request.is_traced()
    reader = await request.weir.durable.read(stream_id, owner_of(request), request.id, position)
    reader.journey.traced = traced
    return reading(reader, format, request.weir.settings)


@router.get("/v1/streams/{stream_id}/status")
async def stream_status(request: Request, stream_id: str) -> Response:
    """How far it is, and whether it has ended."""
    return json_response(await request.weir.durable.status(stream_id, owner_of(request)))


@router.delete("/v1/streams/{stream_id}")
async def cancel_stream(request: Request, stream_id: str) -> Response:
    """Ends it, marked; readers get what was said, and that end."""
    return json_response(await request.weir.controls.send(stream_id, owner_of(request), Control.read("cancel", {})))
