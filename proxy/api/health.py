"""Live, ready, and how each provider does."""

import asyncio
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from proxy.api.auth import admin
from proxy.api.json import json_response
from proxy.api.probe import probe
from proxy.errors import StoreAway
from proxy.state.stats import Figures
from proxy.upstream import Upstream
from proxy.weir import Weir

router = APIRouter(tags=["health"])

DEGRADED = 0.1  # the share of failed requests from which a provider counts as degraded


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live")
async def live() -> Response:
    """200 while the process runs."""
    return json_response({"status": "live"})


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """200 while new requests are welcome, 503 from the first moment of a shutdown."""
    weir: Weir = request.app.state.weir
    if weir.draining:
        return json_response({"status": "draining"}, 503)
    if weir.store.away:
        return json_response({"status": "degraded", "reason": "Redis does not answer; known providers are served"})
    return json_response({"status": "ready"})


@router.get("/providers/health", dependencies=[Depends(admin)])
async def providers_health(request: Request, probe: bool = False) -> Response:
    """State and figures of each provider, over all replicas. `?probe=true` asks each of them now."""
    weir: Weir = request.app.state.weir
    probes = await _probe_all(list(weir.router)) if probe else {}
    try:
        await weir.store.wait("statistics", weir.fleet.stats.read())
        stale = False
    except StoreAway:
        stale = True
    figures = weir.fleet.stats.sum()
    shown = {
        upstream.id: _provider(upstream, figures.get(upstream.id, Figures())) | probes.get(upstream.id, {})
        for upstream in weir.router
    }
    return json_response({"stale": stale, "providers": shown})


async def _probe_all(upstreams: list[Upstream]) -> dict[str, dict[str, Any]]:
    results = await asyncio.gather(*map(probe, upstreams))
    return {upstream.id: {"probe": result} for upstream, result in zip(upstreams, results, strict=True)}


def _provider(upstream: Upstream, figures: Figures) -> dict[str, Any]:
    verdict, error = upstream.circuit.verdict, figures.last_error
    return {
        "state": _state(upstream, figures),
        "provider_type": upstream.config.provider_type,
        "active_streams": figures.active,
        **{name: tally.figures() for name, tally in figures.windows.items()},
        "last_error": {"message": error.message, "kind": error.kind, "at": round(error.at, 3)} if error else None,
        "left_out_until": round(verdict.until, 3) if verdict.open else None,
        "ejections": verdict.ejections,
    }


def _state(upstream: Upstream, figures: Figures) -> str:
    """By the shortest window in which it was asked at all; what nobody waited for says nothing."""
    if upstream.circuit.verdict.open:
        return "open"
    for tally in figures.windows.values():
        if tally.requests > tally.cancelled:
            return "degraded" if tally.error_rate >= DEGRADED else "healthy"
    return "unknown"
