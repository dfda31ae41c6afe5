"""The connection to Redis, or to an embedded stand-in: the same commands, in this process, gone when it ends."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import fakeredis
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, WatchError
from redis.maint_notifications import MaintNotificationsConfig

from proxy.errors import ConfigError, StoreAway

log = logging.getLogger(__name__)

PATIENCE = 0.25  # seconds that anything may wait for Redis
Lost = WatchError  # another process changed what this one was about to change, or the connection broke meanwhile
_T = TypeVar("_T")


class Store:
    """`client` speaks Redis; keys begin with `prefix`. `away`: it failed, and no whole beat has gone well since."""

    def __init__(self, client: Any, *, embedded: bool, prefix: str = "weir:"):
        self.client = client  # Any: redis-py's annotations speak of its blocking and its async client at once
        self.embedded = embedded
        self.away = False
        self._why = ""
        self._prefix = prefix
        self._abandoned: set[asyncio.Task[Any]] = set()

    def key(self, *parts: object) -> str:
        return self._prefix + ":".join(map(str, parts))

    def announce(self, pipe: Any) -> None:
        """Adds to a transaction that providers or circuits have changed: every replica looks within a beat.

        A new value each time, rather than a count: a Redis that lost its memory cannot come to the same one again.
        """
        pipe.set(self.key("version"), secrets.token_hex(8))

    async def wait(self, what: str, work: Coroutine[Any, Any, _T]) -> _T:
        """As `attempt`, for a request: while Redis is known to be away it is not asked."""
        if self.away:
            work.close()
            raise StoreAway(what)
        return await self.attempt(what, work)

    async def attempt(self, what: str, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of `work`, or StoreAway after PATIENCE; `what` names what needs it, for the message."""
        task = asyncio.create_task(work)
        try:
            # Cancelled, redis-py may connect anew to tidy up: nobody waits for that. What is embedded cannot be away.
            if not (await asyncio.wait((task,), timeout=None if self.embedded else PATIENCE))[0]:
                raise TimeoutError(f"no answer within {PATIENCE:g} s")
            return task.result()
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
        sentinel = getattr(self.client.connection_pool, "sentinel_manager", None)
        for client in (self.client, *(sentinel.sentinels if sentinel else ())):
            await client.aclose()


def open_store(url: str | None, prefix: str = "weir:") -> Store:
    """A store at `url`, or one in this process without it. Nothing is connected yet.

    `url`: redis://, rediss:// (TLS), unix://, or redis+sentinel://[user:password@]host:port,host:port/service[/db]
    (`?sentinel_password=`, `?ssl=true`). Raises ConfigError for anything else.
    """
    if url is None:
        return Store(fakeredis.FakeAsyncRedis(decode_responses=True), embedded=True, prefix=prefix)
    # A command that may have landed must not be sent twice behind our back: retries are ours to decide.
    options: dict[str, Any] = {
        "socket_timeout": PATIENCE,
        "socket_connect_timeout": PATIENCE,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
        # They would switch off redis-py's look at whether an idle connection is dead, or holds a reply nobody took.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    try:
        sentinel = url.startswith("redis+sentinel://")
        client = _through_sentinel(url, options) if sentinel else redis.Redis.from_url(url, **options)
        client.connection_pool.make_connection()  # which complains about options it does not know; nothing is sent
    except (ValueError, TypeError):  # their texts may hold a piece of the password
        raise ConfigError([_URL_FORMS]) from None
    return Store(client, embedded=False, prefix=prefix)


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
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        [(place.hostname, place.port or 26379) for place in places],
        sentinel_kwargs={**options, **tls, "password": query.get("sentinel_password")},
        **options,
    )
    return sentinel.master_for(service, db=int(db or 0), username=username or None, password=password or None, **tls)
