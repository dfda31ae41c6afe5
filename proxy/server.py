"""Running under uvicorn: which addresses are safe, and how a process says goodbye."""

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import os
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, NoReturn

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from proxy.api.auth import is_loopback
from proxy.app import create_app
from proxy.connection import Connection
from proxy.errors import ConfigError
from proxy.logs import configure
from proxy.pipeline.stream import SHUTDOWN
from proxy.settings import Settings
from proxy.tasks import keep
from proxy.websocket import OPTIONS
from proxy.weir import Weir

log = logging.getLogger(__name__)


def check_exposure(settings: Settings, host: str, workers: int) -> None:
    """Raises ConfigError for a set-up that would open this machine, or that cannot work."""
    if not settings.guarded and not is_loopback(host):
        problem = f"refusing to listen on {host} without keys: set WEIR_API_KEYS and WEIR_ADMIN_KEY, or use 127.0.0.1"
        raise ConfigError([problem])
    if workers > 1 and settings.redis_url is None:
        raise ConfigError([f"{workers} workers need REDIS_URL: without it each would have providers of its own"])


def serve(settings: Settings, host: str, port: int, workers: int) -> None:
    """Serves until told to stop. The path of providers.yaml is in WEIR_CONFIG, for this process and its workers."""
    config = uvicorn.Config(
        "proxy.server:app",
        factory=True,
        host=host,
        port=port,
        http=Connection,
        workers=workers,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,  # longer than a load balancer's, so that it never meets a connection that just closed
        timeout_graceful_shutdown=int(settings.grace) + 5,
        **OPTIONS,
    )
    _open_as_many_files_as_may_be()
    for sig in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them once more at the end; we have obeyed by then
        signal.signal(sig, lambda *_: None)
    if workers == 1:
        _Server(config).run()
        return
    sockets = [config.bind_socket()]
    log.info("listening on http://%s:%s with %d workers", _in_url(host), port, workers)
    _Supervisor(config, sockets=sockets).run()


def _open_as_many_files_as_may_be() -> None:
    """A stream holds two. By default Linux gives a process 1,024 until it asks for more; its workers inherit them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # there are systems that have less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def app() -> FastAPI:
    """What a server process runs: the application, and the signals of an operator."""
    settings = Settings.from_environment(os.environ)
    configure(settings.log_level)
    application = create_app(settings)
    inner = application.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            try:
                state = await stack.enter_async_context(inner(app))
            except ConfigError as error:
                _give_up(error)
            stack.enter_context(_signals(app.state.weir))
            _collect_seldom()
            log.info("serving %d providers", len(list(app.state.weir.router)))
            yield state

    application.router.lifespan_context = lifespan
    return application


def _collect_seldom() -> None:
    """What was imported stays, and need not be looked at again; what requests leave behind is hardly ever in cycles.

    Looking for cycles as often as Python does by default cost a seventh of each request, and with 1,000 streams pauses
    of 0.15 s.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _give_up(error: ConfigError) -> NoReturn:
    """Ends a process that cannot start; a supervisor tries again, while its other workers serve.

    Left to uvicorn this would be a traceback, and a status that takes the other workers down too.
    """
    for problem in error.problems:
        log.error("%s", problem)
    time.sleep(1)  # so that trying again costs little until somebody has mended it
    os._exit(1)


class Farewell:
    """SIGTERM: not ready, still serving (drain); then streams may end (grace); then they are ended, marked.

    SIGINT, from a person who waits, skips both waits, and so does a second signal. `stop_server` is told the signal.
    """

    def __init__(self, weir: Weir, stop_server: Callable[[int], None]):
        self._weir = weir
        self._stop_server = stop_server
        self._leaving: asyncio.Task[None] | None = None

    def say(self, sig: int) -> None:
        patient = sig == signal.SIGTERM and not self._weir.draining
        self._weir.draining = True
        if self._leaving is not None:
            self._leaving.cancel()
        self._leaving = asyncio.get_running_loop().create_task(self._leave(sig, patient))

    async def _leave(self, sig: int, patient: bool) -> None:
        settings = self._weir.settings
        if patient:
            log.info("leaving: serving for %g s more, then %g s for running streams", settings.drain, settings.grace)
            await asyncio.sleep(settings.drain)
        self._weir.leave(settings.grace if patient else 0.0)
        self._stop_server(sig)
        if patient:
            await asyncio.sleep(settings.grace)
        self._weir.stop_streams(SHUTDOWN)


@contextmanager
def _signals(weir: Weir) -> Iterator[None]:
    """Takes the signals over from uvicorn, which would stop listening at once, and hands them on when it is time."""
    loop = asyncio.get_running_loop()
    of_uvicorn = {sig: signal.getsignal(sig) for sig in (signal.SIGTERM, signal.SIGINT)}

    def stop_server(sig: int) -> None:
        handler = of_uvicorn[signal.Signals(sig)]
        if callable(handler):
            handler(sig, None)

    farewell = Farewell(weir, stop_server)
    for sig in of_uvicorn:
        loop.add_signal_handler(sig, farewell.say, sig)
    reloads: set[asyncio.Task[None]] = set()
    loop.add_signal_handler(signal.SIGHUP, lambda: keep(reloads, weir.try_reload()))
    if (parent := multiprocessing.parent_process()) is not None:

        def orphaned() -> None:
            loop.remove_reader(parent.sentinel)
            log.warning("the process that looks after this worker is gone")
            farewell.say(signal.SIGTERM)

        loop.add_reader(parent.sentinel, orphaned)
    yield


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:  # not a moment earlier: the port may have been taken
            log.info("listening on http://%s:%s (Ctrl-C stops it)", _in_url(self.config.host), self.config.port)


class _Supervisor(Multiprocess):
    """Several workers. SIGHUP reaches each of them, rather than replacing them, and so does a second signal."""

    def handle_int(self) -> None:
        super().handle_int()
        self.signal_queue.append(signal.SIGINT)  # they are told SIGTERM first, and this then

    def join_all(self) -> None:
        while alive := [process.pid for process in self.processes if process.process.is_alive()]:
            for sig in tuple(self.signal_queue):
                self.signal_queue.remove(sig)
                for pid in alive if sig in (signal.SIGTERM, signal.SIGINT) else ():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid or 0, sig)
            time.sleep(0.1)
        super().join_all()

    def handle_hup(self) -> None:
        for process in self.processes:
            if process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)
