"""What every route has, in whoever's application it is mounted: an id, and failures in OpenAI's error shape."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette import requests
from starlette.responses import Response
from starlette.types import Receive, Scope

from proxy.api.envelope import sane_id
from proxy.api.request import Request
from proxy.api.responses import error_response
from proxy.errors import RequestError, WeirError

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


class Route(APIRoute):
    """A route of Weir's. Its requests have a `state` of their own.

    An application around it may keep in its `request.state` what it likes; a sane `id` in there is taken for this
    request's.
    """

    def get_route_handler(self) -> Callable[[requests.Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: requests.Request) -> Response:
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
