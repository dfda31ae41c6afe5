"""What routes answer with: JSON, and of every failure OpenAI's error shape."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from proxy.errors import WeirError


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def error_response(error: WeirError, headers: Mapping[str, str] | None = None) -> Response:
    return json_response(error.body(), error.status, {**error.headers, **(headers or {})})
