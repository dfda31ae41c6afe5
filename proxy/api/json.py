"""JSON in and out of the routes: bodies with a limit, answers without a detour."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from proxy.api.once import note_body
from proxy.errors import RequestError
from proxy.request import parse_object
from proxy.settings import Settings


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


async def read_body(request: Request) -> bytes:
    """The whole body. Raises RequestError: 413 as soon as it is known to be too large, 408 if it stops coming."""
    settings: Settings = request.state.weir.settings
    announced = request.headers.get("content-length", "")
    expected = int(announced) if announced.isdigit() else None
    if expected is not None and expected > settings.max_body:
        raise _too_large(settings.max_body)
    body, loop = bytearray(), asyncio.get_running_loop()
    try:
        async with asyncio.timeout(settings.stall) as patience:
            async for piece in request.stream():
                body += piece
                if len(body) > settings.max_body:
                    raise _too_large(settings.max_body)
                if expected is None or len(body) < expected:
                    patience.reschedule(loop.time() + settings.stall)
    except TimeoutError:
        raise RequestError("the rest of the body did not come", status=408, code="body_timeout") from None
    whole = bytes(body)
    note_body(request, whole)
    return whole


async def read_object(request: Request) -> dict[str, Any]:
    """A JSON object. Raises RequestError (400, 408, 413)."""
    return parse_object(await read_body(request))


def _too_large(limit: int) -> RequestError:
    return RequestError(f"the body is larger than {limit} bytes", status=413, code="body_too_large")
