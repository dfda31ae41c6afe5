"""What every route has, in whoever's application it is mounted: an id, and failures in OpenAI's error shape."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from proxy.api.envelope import sane_id
from proxy.api.errors import error_response
from proxy.errors import RequestError, WeirError

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


class Route(APIRoute):
    """A route of Weir's. Its request has `state.id`, and from `Mount` `state.weir` and `state.keys`.

    That state is its own: an application around it may keep in `request.state` what it likes. A sane `id` in there is
    taken for this request's.
    """

    def get_route_handler(self) -> Endpoint:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await answered(request.scope, request.receive, inner)

        return handle


async def answered(scope: Scope, receive: Receive, endpoint: Endpoint) -> Response:
    """What `endpoint` answers to a request, or says of it in OpenAI's error shape; under the request's id."""
    request_id = sane_id(scope.get("state", {}).get("id"))
    try:
        response = await endpoint(Request({**scope, "state": {"id": request_id}}, receive))
    except WeirError as error:
        response = error_response(error)
    except RequestValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][-1])
        response = error_response(RequestError(f"{name}: {first['msg']}", param=name))
    response.headers.setdefault("x-request-id", request_id)
    return response
