"""Providers, registered, listed, changed and removed while Weir runs."""

import contextlib
import re
from typing import Any

import msgspec
from fastapi import APIRouter, Depends
from starlette.responses import Response

from proxy import registration
from proxy.api.auth import admin
from proxy.api.request import Request
from proxy.api.responses import json_response
from proxy.api.route import Route
from proxy.errors import RequestError
from proxy.provider import texts
from proxy.registration import check_managed, checked, find
from proxy.state.store import Lost
from proxy.upstream import Upstream
from proxy.weir import Weir

router = APIRouter(route_class=Route, tags=["providers"], dependencies=[Depends(admin)])


@router.get("/providers")
async def list_providers(request: Request) -> Response:
    return json_response({"providers": [_shown(upstream) for upstream in request.weir.router]})


@router.post("/providers")
@router.post("/providers/register")
@router.post("/api/streaming/providers/register")
async def register(request: Request) -> Response:
    """Registers a provider, or replaces the registration of that id. `"verify": true` asks it something first."""
    return await _take(request.weir, await _read(request), created=201)


@router.get("/providers/{provider_id}")
async def get_provider(request: Request, provider_id: str) -> Response:
    return json_response(_shown(find(request.weir, provider_id)))


@router.patch("/providers/{provider_id}")
async def change(request: Request, provider_id: str) -> Response:
    """Changes the fields given, as JSON merge patch (RFC 7396): `null` puts a field back to its default."""
    weir, changes = request.weir, await _read(request)
    if changes.get("provider_id", provider_id) != provider_id:
        raise RequestError("provider_id: cannot be changed; register a new provider", param="provider_id")
    check_managed(weir, provider_id)
    while True:
        known = await weir.fleet.registered(provider_id)
        old = msgspec.json.decode(known) if known else find(weir, provider_id).config.private()
        with contextlib.suppress(Lost):  # somebody has changed it meanwhile, on another replica perhaps
            return await _take(weir, _merged(old, changes), created=200, instead_of=known)


@router.delete("/providers/{provider_id}")
async def remove(request: Request, provider_id: str) -> Response:
    """Takes a provider out of service everywhere; its running streams end in peace."""
    await registration.unregister(request.weir, provider_id)
    return json_response({"provider_id": provider_id, "deleted": True})


async def _read(request: Request) -> dict[str, Any]:
    body = await request.json_object()
    _check_data_only(body)
    if not isinstance(body.get("verify", False), bool):
        raise RequestError("verify: must be true or false", param="verify")
    return body


def _merged(old: Any, changes: Any) -> Any:
    """Objects are merged, null takes away, all else replaces."""
    if not isinstance(changes, dict):
        return changes
    known = old if isinstance(old, dict) else {}
    merged = {**known, **{name: _merged(known.get(name), value) for name, value in changes.items()}}
    return {name: value for name, value in merged.items() if value is not None}


async def _take(weir: Weir, body: dict[str, Any], created: int, instead_of: str | None = None) -> Response:
    verify = body.pop("verify", False)
    config = checked(body)
    if weir.pipeline.registry.adapter(config.provider_type).only_in_file:
        message = f"provider_type: {config.provider_type!r} runs code of the operator's; write it into providers.yaml"
        raise RequestError(message, code="invalid_provider", param="provider_type")
    upstream, verified = await registration.register(weir, config, verify=verify, instead_of=instead_of)
    return json_response(_shown(upstream) | ({"verified": verified} if verify else {}), created)


_LOOKED_UP = ("os.environ/", "oidc/", "file:")
_NAMES_A_FILE = re.compile(r"credentials$|^path$|(^|_)file(_|$)|^ssl_|^aws_profile_name$|^command$")


def _check_data_only(body: dict[str, Any]) -> None:
    """What comes over REST is data: no text in it may make a vendor's code look into this machine's files or variables.

    Such a text is known by how it begins, or by the name it stands under.
    """
    for path, text in texts(body):
        if text.startswith(_LOOKED_UP) or _NAMES_A_FILE.search(path[-1]):
            where = ".".join(path[:5])
            message = f"{where}: files and variables can be named in providers.yaml; here, give what they hold"
            raise RequestError(message, code="invalid_provider", param=where)


def _shown(upstream: Upstream) -> dict[str, Any]:
    return upstream.config.public() | {"source": "rest" if upstream.managed else "file"}
