"""Every failure in OpenAI's error shape."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from proxy.api.json import json_response
from proxy.errors import WeirError


def error_response(error: WeirError, headers: Mapping[str, str] | None = None) -> Response:
    return json_response(error.body(), error.status, {**error.headers, **(headers or {})})


def install(app: FastAPI) -> None:
    """Makes `app` answer so where there is no route; what routes raise they answer themselves (`route.py`)."""

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        told = {
            404: f"there is no route {path}",
            405: f"{request.method} is not possible on {path}",
        }.get(error.status_code, str(error.detail))
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        return error_response(WeirError(told, status=error.status_code, code=code), error.headers)
