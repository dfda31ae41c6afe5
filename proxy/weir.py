"""A whole proxy without its HTTP surface: opened from settings and a configuration, closed when done."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import getproxies

import aiohttp
from aiohttp import AddrInfoType

from proxy.config import Config, examine, read_config
from proxy.durable.streams import DurableStreams
from proxy.errors import ConfigError, RequestError
from proxy.fleet import Fleet
from proxy.journey import Journey
from proxy.mode_count import ModeCount
from proxy.pipeline.control import Controls
from proxy.pipeline.failover import Failover
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.routing import Router
from proxy.pipeline.running import Live, Running
from proxy.pipeline.stream import Stream
from proxy.provider import ProviderConfig
from proxy.registry import Registry
from proxy.request import ChatRequest
from proxy.settings import Settings
from proxy.sockets import SOCKETS, Sockets
from proxy.state.embedded import sweep
from proxy.state.sessions import SessionStore
from proxy.state.store import open_store
from proxy.state.stream_log import Once
from proxy.tasks import end
from proxy.upstream import Upstream
from proxy.watchdog import watchdog

log = logging.getLogger(__name__)

LOOK_AT_FILE = 0.5  # seconds between looks at providers.yaml
RECEIVED = 64 * 1024  # bytes that the kernel holds of an answer, which doubles this for its own needs
SWEEP = 10.0  # seconds between sweeps of the embedded store


class Weir:
    """The parts, wired. `draining`: this replica wants no new work; what runs may end."""

    def __init__(self, settings: Settings, config: Config, path: Path | None, session: aiohttp.ClientSession):
        url = settings.redis_url.get_secret_value() if settings.redis_url else None
        self.settings = settings
        self.store = open_store(url, settings.redis_prefix)
        registry = Registry.with_plugins(config.plugins)
        self.router = Router(registry, session)
        self.sessions = SessionStore(self.store, settings.session_ttl)
        self.fleet = Fleet(self.store, self.router, self.sessions)
        self.pipeline = Pipeline(self.router, Failover(self.fleet.circuits), registry, self.sessions)
        self.pipeline.log_content = settings.log_content
        self.durable = DurableStreams(self.pipeline, self.store, self.fleet.replica, settings)
        self.controls = Controls(self.pipeline, self.store, self.fleet.replica, self.durable.producer)
        self.sockets = Sockets(self.fleet.stats.meter(SOCKETS))
        registry.add_monitor(ModeCount(self.fleet.stats))
        self.draining = False
        self.bodies: set[asyncio.Timeout] = set()  # the patience with each request whose body is still to come
        self._config = config
        self._path = path
        self._reloading = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, path: Path | None = None) -> AsyncIterator["Weir"]:
        """A running proxy with the providers of the file at `path`. Raises ConfigError, with every mistake named."""
        seen = _stamp(path)  # first: a change that comes while we start is not to be missed
        config = read_config(path, os.environ) if path else Config([], {})
        async with open_session() as session:
            weir = cls(settings, config, path, session)
            background: list[asyncio.Task[None]] = []
            try:
                await weir.fleet.join(config.providers)
                await prepare((upstream for upstream in weir.router if not upstream.managed), config.places)
                await weir.controls.bus.start()
                await weir.durable.start()
                background = [asyncio.create_task(work) for work in (weir._follow_file(seen), weir._sweep())]
                with watchdog():
                    yield weir
            finally:
                await weir.durable.close()
                await end(*background)
                await weir.controls.bus.close()
                await weir.fleet.leave()
                await weir.router.close()
                await weir.store.close()

    async def reload(self) -> None:
        """Reads the file again. Raises ConfigError, with everything as it was; running streams do not notice."""
        if self._path is None:
            return
        async with self._reloading:
            config = read_config(self._path, os.environ)
            if config.plugins != self._config.plugins:
                log.warning("a change of `plugins` takes effect at the next start")
            changed = [it for name, it in config.providers.items() if self.fleet.file.get(name) != it]
            await try_out(self.router, changed, config)
            await self.fleet.use_file(config.providers)
            self._config = config
            log.info("%s read: %d providers", self._path.name, len(config.providers))

    async def try_reload(self) -> None:
        """As `reload`, for when nobody waits for the answer: a wrong file is named in the log."""
        try:
            await self.reload()
        except ConfigError as error:
            log.error("the new %s is wrong and was not taken: %s", self._path, error.message)
        except Exception as error:  # an adapter may be a plugin's
            log.error("the new %s was not taken: an adapter failed with %s", self._path, type(error).__name__)

    def stream(self, request: ChatRequest, owner: str = "") -> Stream:
        """A stream of this replica's for `request`, which `owner` may control."""
        return Stream(Journey(request.id, ",".join(request.sources), request.options.mode), self.fleet.replica, owner)

    async def run(
        self, request: ChatRequest, stream: Stream, once: Once | None = None, message_id: str = ""
    ) -> Running:
        """The answer to `request`, not yet begun; or, if it is to be durable, its first reader.

        An idempotency key (`once`) makes it so. Raises RequestError, and StoreAway where Redis is needed.
        """
        durable = request.options.durable
        if durable is None:
            durable = once is not None or any(self.router.durable(name) for name in request.sources)
        elif once is not None and not durable:
            raise RequestError("an Idempotency-Key needs a durable stream", param="weir.durable")
        if durable:
            return await self.durable.begin(request, stream, message_id, once)
        return Live(self.pipeline, request, stream)

    def leave(self, grace: float) -> None:
        """This replica is about to stop; what runs may go on for so many seconds."""
        self.durable.leave(grace)

    def stop_streams(self, reason: str) -> None:
        """Ends every running request with a marked error, and waits for no body any more; durable streams are left to
        other replicas.
        """
        for stream in list(self.pipeline.live.values()):
            if not stream.durable:
                stream.stop(reason)
        for patience in self.bodies:
            patience.reschedule(0)
        self.durable.release()

    async def _follow_file(self, seen: "_Stamp | None") -> None:
        """Takes a change up once the file has stood still for a look, and is not empty: somebody may be writing it."""
        last = seen
        while self._path is not None:
            await asyncio.sleep(LOOK_AT_FILE)
            now = _stamp(self._path)
            if now == last != seen and (now is None or now.size):
                seen = now
                await self.try_reload()
            last = now

    async def _sweep(self) -> None:
        while self.store.embedded:
            await asyncio.sleep(SWEEP)
            await sweep(self.store, self.settings.store_budget)


@asynccontextmanager
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    """The one HTTP client. It honours HTTPS_PROXY, NO_PROXY, and SSL_CERT_FILE; limits are set call by call."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, socket_factory=_small),
        cookie_jar=aiohttp.DummyCookieJar(),  # two providers on one host must not share cookies
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=bool(getproxies()),  # looking proxies up costs 0.3 ms a request: only where there are any
    ) as session:
        yield session


def _small(address: AddrInfoType) -> socket.socket:
    """A socket that takes no megabytes ahead of a reader who is slow, or has paused: its provider is held back."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED)
    return made


async def check(path: Path) -> list[str]:
    """Reads a configuration and makes its adapters ready, serving nothing: the provider ids. Raises ConfigError."""
    config = examine(path, os.environ)
    problems = list(config.problems)
    async with open_session() as session:
        try:
            router = Router(Registry.with_plugins(config.plugins), session)
            await try_out(router, config.providers.values(), config)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return list(config.providers)


async def try_out(router: Router, providers: Iterable[ProviderConfig], config: Config) -> None:
    """Makes their adapters ready, and closes them again. Raises ConfigError."""
    upstreams = []
    try:
        for provider in providers:
            upstreams.append(router.build(provider, managed=False))
        await prepare(upstreams, config.places)
    finally:
        for upstream in upstreams:
            await upstream.retire()


async def prepare(upstreams: Iterable[Upstream], places: Mapping[str, str]) -> None:
    """Makes every adapter ready, all at once. Raises ConfigError naming each that can never work, and its place."""
    todo = list(upstreams)
    results = await asyncio.gather(*(upstream.prepare() for upstream in todo), return_exceptions=True)
    problems = []
    for upstream, result in zip(todo, results, strict=True):
        if isinstance(result, ConfigError) and result.code == "not_installed":
            log.warning("%s", result.message)  # the others can serve; requests for this one are told the same
        elif isinstance(result, ConfigError):
            place = places.get(upstream.id, f"provider {upstream.id}")
            problems += [f"{place}: {problem}" for problem in result.problems]
        elif isinstance(result, BaseException):
            raise result
    if problems:
        raise ConfigError(problems)


class _Stamp(NamedTuple):
    """What changes when a file does."""

    changed: int
    inode: int
    size: int


def _stamp(path: Path | None) -> _Stamp | None:
    """None while it is not there."""
    with contextlib.suppress(OSError):
        if path is not None:
            found = path.stat()
            return _Stamp(found.st_mtime_ns, found.st_ino, found.st_size)
    return None
