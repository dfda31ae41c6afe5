"""Providers, registered, listed, changed and removed while Weir runs."""

import re
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from proxy.api.auth import admin
from proxy.api.json import json_response, read_object
from proxy.api.probe import probe
from proxy.errors import RequestError
from proxy.provider import ProviderConfig, mistakes
from proxy.upstream import Upstream
from proxy.weir import Weir

router = APIRouter(tags=["providers"], dependencies=[Depends(admin)])


@router.get("/providers")
async def list_providers(request: Request) -> Response:
    weir: Weir = request.app.state.weir
    return json_response({"providers": [_shown(upstream) for upstream in weir.router]})


@router.post("/providers")
@router.post("/providers/register")
@router.post("/api/streaming/providers/register")
async def register(request: Request) -> Response:
    """Registers a provider, or replaces the registration of that id. `"verify": true` asks it something first."""
    return await _take(request.app.state.weir, await _read(request), created=201)


@router.get("/providers/{provider_id}")
async def get_provider(request: Request, provider_id: str) -> Response:
    return json_response(_shown(_find(request.app.state.weir, provider_id)))


@router.patch("/providers/{provider_id}")
async def change(request: Request, provider_id: str) -> Response:
    """Changes the fields given, as JSON merge patch (RFC 7396): `null` puts a field back to its default."""
    weir: Weir = request.app.state.weir
    changes = await _read(request)
    upstream = _find(weir, provider_id)
    if changes.get("provider_id", provider_id) != provider_id:
        raise RequestError("provider_id: cannot be changed; register a new provider", param="provider_id")
    _check_managed(weir, provider_id)
    return await _take(weir, _merged(upstream.config.private(), changes), created=200)


@router.delete("/providers/{provider_id}")
async def remove(request: Request, provider_id: str) -> Response:
    """Takes a provider out of service everywhere; its running streams end in peace."""
    weir: Weir = request.app.state.weir
    _check_managed(weir, _find(weir, provider_id).id)
    await weir.fleet.unregister(provider_id)
    return json_response({"provider_id": provider_id, "deleted": True})


async def _read(request: Request) -> dict[str, Any]:
    body = await read_object(request)
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


async def _take(weir: Weir, body: dict[str, Any], created: int) -> Response:
    verify = body.pop("verify", False)
    config = _checked(body)
    _check_managed(weir, config.provider_id)
    upstream = weir.fleet.build(config, managed=True)
    try:
        await upstream.prepare()
        verified = {"verified": await probe(upstream)} if verify else {}
        await weir.fleet.register(upstream)
    except BaseException:
        await upstream.retire()
        raise
    upstream.circuit.forgive(upstream.clock())
    return json_response(_shown(upstream) | verified, created)


def _checked(body: dict[str, Any]) -> ProviderConfig:
    try:
        return ProviderConfig(**body)
    except ValidationError as error:
        told = [(".".join(map(str, where)), what) for where, what in mistakes(error)]
        message = "; ".join(f"{where}: {what}" if where else what for where, what in told)
        raise RequestError(message, code="invalid_provider", param=told[0][0] or None) from None


_LOOKED_UP = ("os.environ/", "oidc/", "file:")
_NAMES_A_FILE = re.compile(r"credentials$|^path$|(^|_)file(_|$)|^ssl_|^aws_profile_name$|^command$")


def _check_data_only(value: Any, path: tuple[str, ...] = ()) -> None:
    """What comes over REST is data: no text in it may make a vendor's code look into this machine's files or variables.

    Such a text is known by how it begins, or by the name it stands under.
    """
    where = ".".join(path[:5])
    if len(path) > 20:
        raise RequestError(f"{where}: nested too deeply", code="invalid_provider", param=where)
    if isinstance(value, str) and path and (value.startswith(_LOOKED_UP) or _NAMES_A_FILE.search(path[-1])):
        message = f"{where}: files and variables can be named in providers.yaml; here, give what they hold"
        raise RequestError(message, code="invalid_provider", param=where)
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        _check_data_only(child, (*path, str(name)))


def _find(weir: Weir, provider_id: str) -> Upstream:
    upstream = weir.router.get(provider_id)
    if upstream is None:
        known = ", ".join(sorted(other.id for other in weir.router)) or "none"
        message = f"there is no provider {provider_id!r}; registered: {known}"
        raise RequestError(message, status=404, code="provider_not_found")
    return upstream


def _check_managed(weir: Weir, provider_id: str) -> None:
    upstream = weir.router.get(provider_id)
    if upstream is not None and not upstream.managed:
        message = f"provider {provider_id!r} stands in providers.yaml; change it there, Weir reads the file again"
        raise RequestError(message, status=409, code="provider_read_only")


def _shown(upstream: Upstream) -> dict[str, Any]:
    return upstream.config.public() | {"source": "rest" if upstream.managed else "file"}
