"""A whole proxy without its HTTP surface: opened from settings and a configuration, closed when done."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.request import getproxies

import aiohttp

from proxy.config import Config, examine, read_config
from proxy.errors import ConfigError
from proxy.failover import Failover
from proxy.fleet import Fleet
from proxy.pipeline import Pipeline
from proxy.registry import Registry
from proxy.routing import Router
from proxy.settings import Settings
from proxy.state.embedded import sweep
from proxy.state.store import open_store
from proxy.tasks import end
from proxy.upstream import Upstream

log = logging.getLogger(__name__)

LOOK_AT_FILE = 1.0  # seconds between looks at providers.yaml
SWEEP = 10.0  # seconds between sweeps of the embedded store


class Weir:
    """The parts, wired. `draining`: this replica wants no new work; what runs may end."""

    def __init__(self, settings: Settings, config: Config, path: Path | None, session: aiohttp.ClientSession):
        url = settings.redis_url.get_secret_value() if settings.redis_url else None
        self.settings = settings
        self.store = open_store(url, settings.redis_prefix)
        self.router = Router(Registry.with_plugins(config.plugins), session)
        self.fleet = Fleet(self.store, self.router)
        self.pipeline = Pipeline(self.router, Failover(self.fleet.circuits))
        self.draining = False
        self._config = config
        self._path = path

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, path: Path | None = None) -> AsyncIterator["Weir"]:
        """A running proxy with the providers of the file at `path`. Raises ConfigError, with every mistake named."""
        config = read_config(path, os.environ) if path else Config([], {})
        async with open_session() as session:
            weir = cls(settings, config, path, session)
            background: list[asyncio.Task[None]] = []
            try:
                await weir.fleet.join(config.providers)
                await prepare((upstream for upstream in weir.router if not upstream.managed), config.places)
                background = [asyncio.create_task(work) for work in (weir._follow_file(), weir._sweep())]
                yield weir
            finally:
                await end(*background)
                await weir.fleet.leave()
                await weir.router.close()
                await weir.store.close()

    async def reload(self) -> None:
        """Reads the file again. Raises ConfigError, with everything as it was; running streams do not notice."""
        if self._path is None:
            return
        config = read_config(self._path, os.environ)
        if config.plugins != self._config.plugins:
            log.warning("a change of `plugins` takes effect at the next start")
        await self.fleet.use_file(config.providers)
        self._config = config
        log.info("%s read: %d providers", self._path.name, len(config.providers))

    async def try_reload(self) -> None:
        """As `reload`, for when nobody waits for the answer: a wrong file is named in the log."""
        try:
            await self.reload()
        except ConfigError as error:
            log.error("the new %s is wrong and was not taken: %s", self._path, error.message)

    def stop_streams(self, reason: str) -> None:
        """Ends every running request with a marked error."""
        for journey in list(self.pipeline.live):
            journey.stop(reason)

    async def _follow_file(self) -> None:
        seen = _stamp(self._path)
        while self._path is not None:
            await asyncio.sleep(LOOK_AT_FILE)
            if (now := _stamp(self._path)) != seen:
                seen = now
                await self.try_reload()

    async def _sweep(self) -> None:
        while self.store.embedded:
            await asyncio.sleep(SWEEP)
            await sweep(self.store, self.settings.store_budget)


@asynccontextmanager
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    """The one HTTP client. It honours HTTPS_PROXY, NO_PROXY, and SSL_CERT_FILE; limits are set call by call."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),  # two providers on one host must not share cookies
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=bool(getproxies()),  # looking proxies up costs 0.3 ms a request: only where there are any
    ) as session:
        yield session


async def check(path: Path) -> list[str]:
    """Reads a configuration and makes its adapters ready, serving nothing: the provider ids. Raises ConfigError."""
    config = examine(path, os.environ)
    problems, upstreams = list(config.problems), []
    async with open_session() as session:
        try:
            router = Router(Registry.with_plugins(config.plugins), session)
            upstreams = [router.build(provider, managed=False) for provider in config.providers.values()]
            await prepare(upstreams, config.places)
        except ConfigError as error:
            problems += error.problems
        finally:
            for upstream in upstreams:
                await upstream.retire()
    if problems:
        raise ConfigError(problems)
    return list(config.providers)


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


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """What changes when the file does; None while it is not there."""
    with contextlib.suppress(OSError):
        if path is not None:
            found = path.stat()
            return found.st_mtime_ns, found.st_ino
    return None
