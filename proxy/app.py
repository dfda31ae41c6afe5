"""The ASGI application: the routes around a Weir."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from proxy.api import chat, errors, health, models, providers
from proxy.api.auth import Keys
from proxy.api.envelope import Envelope
from proxy.settings import Settings
from proxy.weir import Weir


def create_app(settings: Settings | None = None, path: Path | None = None) -> FastAPI:
    """An application with a proxy of its own, which runs while its lifespan does.

    `settings` default to the environment's, `path` (of providers.yaml) to WEIR_CONFIG. Raises ConfigError.
    """
    settings = settings or Settings.from_environment(os.environ)
    if path is None and os.environ.get("WEIR_CONFIG"):
        path = Path(os.environ["WEIR_CONFIG"])

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Weir.open(settings, path) as weir:
            app.state.weir = weir
            yield

    # No page of documentation: it would be open to all, and loads its code from elsewhere.
    app = FastAPI(title="Weir", lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.state.keys = Keys(settings)
    for module in (chat, models, health, providers):
        app.include_router(module.router)
    errors.install(app)
    app.add_middleware(Envelope)
    return app
