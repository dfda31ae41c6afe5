"""GET /api/streaming/stats: what streams now, and what has, over all replicas."""

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from proxy.api.auth import admin
from proxy.api.json import json_response
from proxy.api.route import Route
from proxy.report import statistics
from proxy.weir import Weir

router = APIRouter(route_class=Route, tags=["streaming"], dependencies=[Depends(admin)])


@router.get("/api/streaming/stats")
async def streaming_stats(request: Request) -> Response:
    """Active streams and sessions, sockets and their messages, each mode and each provider. `stale`: Redis is away."""
    weir: Weir = request.state.weir
    return json_response(await statistics(weir))
