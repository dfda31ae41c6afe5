"""GET /api/streaming/stats: what streams now, and what has, over all replicas."""

from fastapi import APIRouter, Depends
from starlette.responses import Response

from proxy.api.auth import admin
from proxy.api.request import Request
from proxy.api.responses import json_response
from proxy.api.route import Route
from proxy.report import statistics

router = APIRouter(route_class=Route, tags=["streaming"], dependencies=[Depends(admin)])


@router.get("/api/streaming/stats")
async def streaming_stats(request: Request) -> Response:
    """Active streams and sessions, sockets and their messages, each mode and each provider. `stale`: Redis is away."""
    return json_response(await statistics(request.weir))
