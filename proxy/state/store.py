"""The connection to Redis, or to an embedded stand-in: the same commands, in this process, gone when it ends."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import fakeredis
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError, WatchError
from redis.maint_notifications import MaintNotificationsConfig

from proxy.errors import ConfigError, StoreAway
from proxy.state.line import Line

log = logging.getLogger(__name__)

PATIENCE = 0.25  # seconds that anything may wait for Redis
MOST_AT_ONCE = 4  # of this process's requests that speak to Redis in turn
LONGEST_QUEUE = 2.0  # seconds that others wait for them
Lost = WatchError  # another process changed what this one was about to change, or the connection broke meanwhile
_T = TypeVar("_T")


class Store:
    """`client` speaks Redis; keys begin with `prefix`. `away`: it failed, and no whole beat has gone well since."""

    def __init__(
        self,
        client: Any,
        *,
        embedded: bool,
        prefix: str = "weir:",
        connect: Callable[[float | None], Any] | None = None,
    ):
        self.client = client  # Any: redis-py's annotations speak of its blocking and its async client at once
        self.embedded = embedded
        self.away = False
        self._why = ""
        self._prefix = prefix
        self._connect = connect
        self._dedicated: list[Any] = []
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._abandoned: set[asyncio.Task[Any]] = set()

    def key(self, *parts: object) -> str:
        return self._prefix + ":".join(map(str, parts))

    def dedicated(self, patience: float | None) -> Any:
        """A client with connections of its own, on which a reply may take `patience` seconds. It closes with this."""
        if self._connect is None:
            return self.client
        self._dedicated.append(self._connect(patience))
        return self._dedicated[-1]

    def line(self, patience: float | None = None) -> Line:
        """A connection of its own, on which an exchange may take so many seconds; PATIENCE if nothing is said."""
        return Line(self.dedicated(None), patience or PATIENCE)

    def announce(self, pipe: Any, *, begin: bool = False) -> None:
        """Adds to a transaction that providers or circuits have changed: every replica looks within a beat.

        The version is a new random value each time. A count would not do: a Redis that has lost its memory could reach
        the same one again. Where there is no version, Redis has lost it, and every replica is to notice that: so only
        who writes back all that is known may `begin` one.
        """
        pipe.set(self.key("version"), secrets.token_hex(8), xx=not begin)

    async def wait(self, what: str, work: Coroutine[Any, Any, _T], *, timed: bool = True) -> _T:
        """As `attempt`, for a request: while Redis is known to be away it is not asked."""
        if self.away:
            work.close()
            raise StoreAway(what)
        return await self.attempt(what, work, timed=timed)

    async def in_turn(self, what: str, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """As `wait`, for work that many requests may have at once: each would open a connection of its own, and they
        would keep each other waiting until Redis is taken to be away.
        """
        try:
            async with asyncio.timeout(LONGEST_QUEUE) as patience, self._slots:
                patience.reschedule(None)
                return await self.wait(what, work())
        except TimeoutError:
            raise StoreAway(what) from None

    async def attempt(self, what: str, work: Coroutine[Any, Any, _T], *, timed: bool = True) -> _T:
        """The result of `work`, or StoreAway after PATIENCE; `what` names what needs it, for the message.

        What is not `timed` looks at the clock itself. What is embedded cannot be away.
        """
        task = asyncio.create_task(work)
        try:
            patience = PATIENCE / 2 if timed and not self.embedded else None
            for _ in range(2):  # when half of it is over it may be this process that was busy, and the answer is there
                if (await asyncio.wait((task,), timeout=patience))[0]:
                    return task.result()
            # Cancelled, redis-py may connect anew to tidy up: nobody waits for that.
            raise TimeoutError(f"no answer within {PATIENCE:g} s")
        except WatchError:
            raise
        except (RedisError, OSError) as error:
            self._failed(error)
            if isinstance(error, ReadOnlyError):  # the host's name may lead to another server by now
                with contextlib.suppress(RedisError, OSError):
                    await self.client.connection_pool.disconnect(inuse_connections=False)
            raise StoreAway(what) from None
        finally:
            if not task.done():
                task.cancel()
                self._abandoned.add(task)
                task.add_done_callback(self._forget)

    async def may_forget(self) -> str | None:
        """Why this Redis may drop what is written to it; None if it does not, or does not tell. Raises StoreAway."""
        if self.embedded:
            return None
        told = await self.attempt("a look at Redis", self._memory())
        policy, limit = told.get("maxmemory_policy", "noeviction"), told.get("maxmemory", 0)
        return f"maxmemory-policy is {policy}" if limit and policy != "noeviction" else None

    async def _memory(self) -> dict[str, Any]:
        try:
            told: dict[str, Any] = await self.client.info("memory")
        except ResponseError:  # INFO is not for everybody
            return {}
        return told

    def back(self) -> None:
        """A whole beat has gone well."""
        if self.away:
            log.warning("Redis is back")
        self.away, self._why = False, ""

    def _failed(self, error: Exception) -> None:
        self.away = True
        if (kind := type(error).__name__) != self._why:
            self._why = kind
            # redis-py puts the command, which may hold a key, before what Redis said.
            log.warning("Redis is away: %s: %s", kind, str(error).rpartition("caused error: ")[2])

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # nobody asks for it, and asyncio complains about those

    async def close(self) -> None:
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=PATIENCE)
        for client in (self.client, *self._dedicated):
            sentinel = getattr(client.connection_pool, "sentinel_manager", None)
            for each in (client, *(sentinel.sentinels if sentinel else ())):
                await each.aclose()


def open_store(url: str | None, prefix: str = "weir:") -> Store:
    """A store at `url`, or one in this process without it. Nothing is connected yet.

    `url`: redis://, rediss:// (TLS), unix://, or redis+sentinel://[user:password@]host:port,host:port/service[/db]
    (`?sentinel_password=`, `?ssl=true`). Raises ConfigError for anything else.
    """
    if url is None:
        return Store(fakeredis.FakeAsyncRedis(decode_responses=True), embedded=True, prefix=prefix)

    def connect(patience: float | None) -> Any:
        options = _options(patience)
        return _through_sentinel(url, options) if sentinel else redis.Redis.from_url(url, **options)

    sentinel = url.startswith("redis+sentinel://")
    try:
        client = connect(4 * PATIENCE)  # an attempt gives up before
        client.connection_pool.make_connection()  # which complains about options it does not know; nothing is sent
    except (ValueError, TypeError):  # their texts may hold a piece of the password
        raise ConfigError([_URL_FORMS]) from None
    return Store(client, embedded=False, prefix=prefix, connect=connect)


def _options(patience: float | None) -> dict[str, Any]:
    # A command that may have landed must not be sent twice behind our back: retries are ours to decide.
    return {
        "socket_timeout": patience,
        "socket_connect_timeout": PATIENCE,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
        # They would switch off redis-py's look at whether an idle connection is dead, or holds a reply nobody took.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


_URL_FORMS = (
    "REDIS_URL cannot be understood. It reads redis://[user:password@]host:port/db, the same with rediss:// for TLS, "
    "unix:///path, or redis+sentinel://[user:password@]host:port,host:port/service[/db]; special characters in a "
    "password are percent-encoded"
)


def _through_sentinel(url: str, options: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    service, _, db = parts.path.strip("/").partition("/")
    login, _, hosts = parts.netloc.rpartition("@")
    username, _, password = map(unquote, login.partition(":"))
    if not service or not hosts or query.keys() - {"sentinel_password", "ssl"}:
        raise ValueError("not a Sentinel URL")
    places = [urlsplit(f"//{host}") for host in hosts.split(",")]
    tls = {"ssl": True} if query.get("ssl") == "true" else {}
    # One that hangs leaves time to ask another: its host may be lost, and the master with it.
    brief = {"socket_timeout": PATIENCE / 4, "socket_connect_timeout": PATIENCE / 4}
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        [(place.hostname, place.port or 26379) for place in places],
        sentinel_kwargs={**options, **tls, **brief, "password": query.get("sentinel_password")},
        **options,
    )
    return sentinel.master_for(service, db=int(db or 0), username=username or None, password=password or None, **tls)
