"""Weir's routes and its life, for any FastAPI application: its own, or somebody else's."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

from fastapi import APIRouter, Depends, FastAPI
from starlette.requests import HTTPConnection

from proxy.api import chat, health, models, providers, sessions, streaming, streams, ui_chat, websocket
from proxy.api.auth import Keys
from proxy.embedding import Weir
from proxy.errors import WeirError
from proxy.settings import Settings

ROUTES: Sequence[ModuleType] = (chat, models, health, providers, streaming, streams, sessions, ui_chat, websocket)


class Mount:
    """A Weir of its own, reached through `router`. Its life is the application's that includes it.

        weir = Mount(Settings(), Path("providers.yaml"))
        app = FastAPI()
        app.include_router(weir.router, prefix="/llm")

    Several live side by side, even in one application.
    """

    def __init__(self, settings: Settings | None = None, path: Path | None = None):
        self.settings = settings or Settings()
        self.router = APIRouter(dependencies=[Depends(self.attach)], lifespan=self.lifespan)
        self._keys = Keys(self.settings)
        self._path = path
        self._weir: Weir | None = None
        for module in ROUTES:
            self.router.include_router(module.router)

    @property
    def weir(self) -> Weir:
        """The running proxy itself, for the program around it. Raises WeirError while it does not run."""
        if self._weir is None:
            message = "Weir does not run here: its router must be included in the application that is started"
            raise WeirError(message, status=503, code="not_running")
        return self._weir

    def is_draining(self) -> bool:
        return self._weir is not None and self._weir.draining

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Runs the proxy. Raises ConfigError with every mistake in the configuration.

        The router brings it along, and runs inside the application's own; one that needs Weir in there enters it first.
        """
        if self._weir is not None:
            yield
            return
        async with Weir.open(self.settings, self._path) as self._weir:
            try:
                yield
            finally:
                self._weir = None

    async def attach(self, connection: HTTPConnection) -> None:
        """Lets a request find this Weir. Raises WeirError while it does not run."""
        connection.state.weir = self.weir
        connection.state.keys = self._keys
