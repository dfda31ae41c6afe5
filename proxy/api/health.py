"""Live, ready, how each provider does, and what streams."""

from fastapi import APIRouter, Depends
from starlette.responses import Response

from proxy.api.auth import admin
from proxy.api.request import Request
from proxy.api.responses import json_response
from proxy.api.route import Route
from proxy.report import health, statistics

router = APIRouter(route_class=Route, tags=["health"])


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live")
async def live() -> Response:
    """200 while the process runs."""
    return json_response({"status": "live"})


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """200 while new requests are welcome, 503 from the first moment of a shutdown."""
    if request.weir.draining:
        return json_response({"status": "draining"}, 503)
    if request.weir.store.away:
        return json_response({"status": "degraded", "reason": "Redis does not answer; known providers are served"})
    return json_response({"status": "ready"})


@router.get("/providers/health", dependencies=[Depends(admin)])
async def providers_health(request: Request, probe: bool = False) -> Response:
    """State and figures of each provider, over all replicas. `?probe=true` asks each of them now."""
    return json_response(await health(request.weir, probe))


@router.get("/api/streaming/stats", dependencies=[Depends(admin)])
async def streaming_stats(request: Request) -> Response:
    """Active streams and sessions, sockets and their messages, each mode and each provider. `stale`: Redis is away."""
    return json_response(await statistics(request.weir))
