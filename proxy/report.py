"""What Weir tells about itself: how each provider does, and what streams. The figures are those of all replicas."""

import asyncio
import contextlib
from typing import Any

from proxy.errors import StoreAway
from proxy.mode_count import MODE
from proxy.probe import probe as ask
from proxy.sockets import SOCKETS
from proxy.state.stats import Figures
from proxy.upstream import Upstream
from proxy.weir import Weir

DEGRADED = 0.1  # the share of failed requests from which a provider counts as degraded


async def health(weir: Weir, probe: bool = False) -> dict[str, Any]:
    """State and figures of each provider, by id. `probe` asks each of them now. `stale`: Redis is away."""
    upstreams = list(weir.router)
    probes = await asyncio.gather(*map(ask, upstreams)) if probe else []
    stale, figures = await _figures(weir)
    shown = {upstream.id: _provider(upstream, figures.get(upstream.id, Figures())) for upstream in upstreams}
    for upstream, result in zip(upstreams, probes, strict=False):
        shown[upstream.id]["probe"] = result
    return {"stale": stale, "providers": shown}


async def statistics(weir: Weir) -> dict[str, Any]:
    """Active streams and sessions, sockets and their messages, each mode and each provider. `stale`: Redis is away."""
    stale, figures = await _figures(weir)
    sessions = None
    if not stale:
        with contextlib.suppress(StoreAway):
            sessions = await weir.sessions.active()
    modes = {name.removeprefix(MODE): found for name, found in figures.items() if name.startswith(MODE)}
    sockets = figures.get(SOCKETS, Figures())
    messages = sockets.windows["total"].others
    return {
        "stale": stale,
        "active_streams": sum(found.active for found in modes.values()),
        "active_sessions": sessions,
        "websocket": {
            "connections": sockets.active,
            "messages_in": messages.get("messages_in", 0),
            "messages_out": messages.get("messages_out", 0),
        },
        "modes": {name: _in_short(found) for name, found in sorted(modes.items())},
        "providers": {up.id: _in_short(figures.get(up.id, Figures())) for up in weir.router},
    }


async def _figures(weir: Weir) -> tuple[bool, dict[str, Figures]]:
    """Whether they are stale, and what everyone counted."""
    stale, stats = False, weir.fleet.stats
    try:
        await stats.take(await weir.store.wait("statistics", stats.fetch()))
    except StoreAway:
        stale = True
    return stale, await stats.total()


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


def _in_short(figures: Figures) -> dict[str, Any]:
    """The figures people ask for first; `health` has them all."""
    total = figures.windows["total"]
    rated = {name.removeprefix("rated_"): count for name, count in total.others.items() if name.startswith("rated_")}
    return {
        "active_streams": figures.active,
        "total_requests": total.requests,
        "error_rate": round(total.error_rate, 4),
        "average_response_ms": total.response.figures()["average"],
        "feedback": rated,
    }
