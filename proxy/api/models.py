"""GET /v1/models: every name that may stand in a request's `model`."""

from typing import Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from proxy.api.auth import client
from proxy.api.request import Request
from proxy.api.responses import json_response
from proxy.api.route import Route
from proxy.upstream import Upstream

router = APIRouter(route_class=Route, tags=["OpenAI"], dependencies=[Depends(client)])


@router.get("/v1/models")
async def list_models(request: Request) -> Response:
    models = request.weir.router.models()
    return json_response({"object": "list", "data": [_model(name, models[name]) for name in models]})


@router.get("/v1/models/{name:path}")
async def get_model(request: Request, name: str) -> Response:
    router = request.weir.router
    upstreams = router.models().get(name) or [upstream for upstream, _ in router.routes(name)]
    return json_response(_model(name, upstreams))


def _model(name: str, upstreams: list[Upstream]) -> dict[str, Any]:
    providers = [upstream.id for upstream in sorted(upstreams, key=lambda upstream: upstream.config.priority)]
    return {"id": name, "object": "model", "created": 0, "owned_by": providers[0], "providers": providers}
