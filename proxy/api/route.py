"""What every route has, in whoever's application it is mounted: an id, and failures in OpenAI's error shape."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from proxy.api.envelope import sane_id
from proxy.api.errors import error_response
from proxy.errors import RequestError, WeirError


class Route(APIRoute):
    """A route of Weir's. Its request has `state.id`, and from `Mount` `state.weir` and `state.keys`.

    That state is its own: an application around it may keep in `request.state` what it likes. A sane `id` in there is
    taken for this request's.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            request_id = sane_id(request.scope.get("state", {}).get("id"))
            request = Request({**request.scope, "state": {"id": request_id}}, request.receive)
            try:
                response = await inner(request)
            except WeirError as error:
                response = error_response(error)
            except RequestValidationError as error:
                first = error.errors()[0]
                name = str(first["loc"][-1])
                response = error_response(RequestError(f"{name}: {first['msg']}", param=name))
            response.headers.setdefault("x-request-id", request_id)
            return response

        return handle
