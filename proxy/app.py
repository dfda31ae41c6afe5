"""The ASGI application: the routes around a Weir."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from proxy.api.envelope import Envelope
from proxy.api.express import Express
from proxy.api.mount import Mount
from proxy.api.responses import error_response
from proxy.errors import WeirError
from proxy.settings import Settings

EXPOSED = ("retry-after", "x-request-id", "x-weir-attempts", "x-weir-provider", "x-weir-stream-id")  # to pages, too


def create_app(settings: Settings | None = None, path: Path | None = None) -> FastAPI:
    """An application with a proxy of its own, which runs while its lifespan does.

    `settings` default to the environment's, `path` (of providers.yaml) to WEIR_CONFIG. Raises ConfigError.
    """
    settings = settings or Settings.from_environment(os.environ)
    if path is None and os.environ.get("WEIR_CONFIG"):
        path = Path(os.environ["WEIR_CONFIG"])
    mount = Mount(settings, path)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with mount.lifespan(app):
            app.state.weir = mount.weir
            yield

    # No page of documentation: it would be open to all, and loads its code from elsewhere.
    app = FastAPI(title="Weir", lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.include_router(mount.router)
    app.add_exception_handler(HTTPException, _no_such_route)
    app.add_middleware(Express, mount=mount)
    app.add_middleware(Envelope, draining=mount.is_draining)
    if settings.origins:  # without them browsers send pages of elsewhere away
        app.add_middleware(  # the outermost: a page is to read an internal error, too
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["*"],
            allow_headers=["*"],
            allow_private_network=True,  # a Weir in their reader's own network
            expose_headers=EXPOSED,
        )
    return app


async def _no_such_route(request: Request, error: Exception) -> Response:
    """Says so in OpenAI's error shape, too. What routes raise they answer themselves (`route.py`)."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    told = {
        404: f"there is no route {path}; an SDK's base URL ends in /v1, and Weir speaks chat completions only",
        405: f"{request.method} is not possible on {path}",
    }.get(error.status_code, str(error.detail))
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return error_response(WeirError(told, status=error.status_code, code=code), error.headers)
