"""Redis away, hanging, refusing or just started: how long anyone waits, what is said, and how it comes back."""

import asyncio
import contextlib
import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

import pytest
import uvloop
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from proxy.errors import ConfigError, StoreAway
from proxy.state.line import command
from proxy.state.store import PATIENCE, Lost, Store, open_store
from tests.journeys import idle
from tests.redis_server import RedisServer, free_port
from tests.state.stores import Stores, stores_at

pytestmark = pytest.mark.anyio

SLACK = 0.1  # seconds that a busy machine may add


async def timed(work: Awaitable[object]) -> float:
    """How long `work` took to fail."""
    began = time.monotonic()
    with pytest.raises(StoreAway):
        await work
    return time.monotonic() - began


async def watch(store: Store) -> None:
    async with store.client.pipeline(transaction=True) as pipe:
        await pipe.watch("x")
        pipe.multi()
        pipe.set("x", "1")
        await pipe.execute()


async def get(store: Store, key: str) -> str | None:
    return await store.attempt("x", store.client.get(key))


async def test_keys_have_a_prefix(stores: Stores, store: Store) -> None:
    assert store.key("stats", "a", 1) == f"{stores.prefix}stats:a:1"


async def test_an_answer_is_passed_on(store: Store) -> None:
    await store.wait("x", store.client.set(store.key("x"), "1"))
    assert await store.attempt("x", store.client.get(store.key("x"))) == "1"
    assert not store.away


async def test_a_race_is_no_outage(stores: Stores, store: Store) -> None:
    async def race() -> None:
        async with store.client.pipeline(transaction=True) as pipe:
            await pipe.watch(store.key("x"))
            await stores().client.set(store.key("x"), "2")
            pipe.multi()
            pipe.set(store.key("x"), "1")
            await pipe.execute()

    with pytest.raises(Lost):
        await store.wait("x", race())
    assert not store.away


async def test_our_own_mistakes_are_not_hidden(store: Store) -> None:
    async def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await store.wait("x", broken())
    assert not store.away


async def test_nobody_waits_longer_for_a_redis_that_hangs(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        store = stores()
        await store.attempt("x", watch(store))
        redis_server.pause()
        try:
            for work in (store.client.get("x"), watch(store), watch(store), store.client.get("x")):
                assert await timed(store.attempt("x", work)) < PATIENCE + SLACK
            for _ in range(20):
                assert await timed(store.wait("x", store.client.get("x"))) < SLACK, "a request does not even ask"
        finally:
            redis_server.resume()
        await store.attempt("x", watch(store))
        assert store.away, "until a whole beat has gone well"
        store.back()
        await store.wait("x", watch(store))


async def test_a_redis_that_hangs_between_two_commands(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        store = stores()

        async def hung() -> None:
            async with store.client.pipeline(transaction=True) as pipe:
                await pipe.watch("x")
                redis_server.pause()
                await pipe.get("x")

        try:
            assert await timed(store.attempt("x", hung())) < PATIENCE + SLACK
        finally:
            redis_server.resume()
        await store.attempt("x", watch(store))


async def test_nobody_waits_longer_for_a_black_hole() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        async with stores_at(f"redis://127.0.0.1:{hole.getsockname()[1]}") as stores:
            store = stores()
            for work in (store.client.get("x"), watch(store)):
                assert await timed(store.attempt("x", work)) < PATIENCE + SLACK


async def test_one_that_is_not_there_is_noticed_at_once_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async with stores_at(f"redis://:s3cr3t@127.0.0.1:{free_port()}") as stores:
        store = stores()
        for _ in range(3):
            assert await timed(store.attempt("x", store.client.get("x"))) < SLACK
    (said,) = caplog.messages
    assert said.startswith("Redis is away: ConnectionError: Error ")
    assert "s3cr3t" not in said


async def test_away_at_start_and_then_there(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer() as server:
        server.kill()
        async with stores_at(server.url) as stores:
            store = stores()
            await timed(store.attempt("x", watch(store)))
            server.start()
            await store.attempt("x", watch(store))
            store.back()
            store.back()
    assert not store.away
    assert caplog.messages[-1] == "Redis is back"
    assert len(caplog.messages) == 2


async def test_connections_that_died_meanwhile_are_not_used_again(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        store = stores()
        await asyncio.gather(*(store.attempt("x", watch(store)) for _ in range(3)), return_exceptions=True)
        await asyncio.to_thread(redis_server.kill)
        await asyncio.to_thread(redis_server.start)
        await store.attempt("x", store.client.get("x"))


async def test_a_cancelled_command_never_answers_the_next(redis_server: RedisServer) -> None:
    """redis-py CVE-2023-28858: the reply to a cancelled command must not be read by whoever asks next."""
    async with stores_at(redis_server.url) as stores:
        store = stores()
        for number in range(50):
            await store.client.set(f"key-{number}", str(number))
        redis_server.pause()
        given_up = [asyncio.create_task(get(store, f"key-{n}")) for n in range(20)]
        given_up += [asyncio.create_task(watch(store)) for _ in range(5)]
        for number, task in enumerate(given_up):
            for _ in range(number % 7):  # at different stages of its life
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        redis_server.resume()
        for number in range(50):
            assert await store.client.get(f"key-{number}") == str(number)


async def test_cancelling_under_load_mixes_nothing_up(shared_redis: RedisServer) -> None:
    async with stores_at(shared_redis.url) as stores:
        store = stores()
        for number in range(10):
            await store.client.set(store.key(number), str(number))
        for turn in range(100):
            asked = [asyncio.create_task(get(store, store.key(n))) for n in range(10)]
            for _ in range(turn % 13):
                await asyncio.sleep(0)
            for task in asked[::2]:
                task.cancel()
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert all(answer == str(n) for n, answer in enumerate(answers) if isinstance(answer, str))
            assert answers[1::2] == ["1", "3", "5", "7", "9"]


async def hset(store: Store) -> None:
    async with store.client.pipeline(transaction=True) as pipe:
        pipe.hset("x", "field", '{"api_key": "sk-very-secret-key"}')
        await pipe.execute()


async def wrong_type(store: Store) -> None:
    await store.client.set("x", "1")
    await hset(store)


@pytest.mark.parametrize(
    ("options", "url", "work", "said"),
    [
        ({"requirepass": "s3cr3t"}, "redis://{place}", hset, "AuthenticationError: HELLO must be called"),
        ({"requirepass": "s3cr3t"}, "redis://:wr0ng@{place}", hset, "AuthenticationError: invalid username-password"),
        ({}, "redis://u:wr0ng@{place}", hset, "AuthenticationError: "),
        ({}, "redis://{place}", wrong_type, "ResponseError: "),
        ({"maxmemory": "1"}, "redis://{place}", hset, "OutOfMemoryError: "),
        ({"replicaof": "127.0.0.1 1"}, "redis://{place}", hset, "ReadOnlyError: "),
        ({"protected-mode": "no", "databases": "1"}, "redis://{place}/5", hset, "ResponseError: DB index"),
    ],
    ids=["no password", "wrong password", "wrong user", "wrong type", "out of memory", "read only", "wrong db"],
)
async def test_what_redis_complains_about_is_said(
    options: dict[str, str],
    url: str,
    work: Callable[[Store], Coroutine[None, None, None]],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RedisServer(appendonly="no", **options) as server:
        async with stores_at(url.format(place=f"127.0.0.1:{server.port}")) as stores:
            store = stores()
            for _ in range(2):
                with pytest.raises(StoreAway):
                    await store.attempt("x", work(store))
            assert store.away
    (line,) = caplog.messages
    assert line.startswith(f"Redis is away: {said}"), line
    for secret in ("s3cr3t", "wr0ng", "sk-very"):
        assert secret not in line


async def test_what_is_said_follows_the_trouble(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(appendonly="no") as server:
        async with stores_at(server.url) as stores:
            store = stores()
            server.kill()
            await timed(store.attempt("x", hset(store)))
            server._options["requirepass"] = "s3cr3t"
            server.start()
            await timed(store.attempt("x", hset(store)))
    assert [message.split(": ")[1] for message in caplog.messages] == ["ConnectionError", "AuthenticationError"]


async def test_a_redis_that_loads_its_data_is_away(caplog: pytest.LogCaptureFixture) -> None:
    async def loading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")
        writer.close()

    server = await asyncio.start_server(loading, "127.0.0.1", 0)
    async with server, stores_at(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as stores:
        store = stores()
        await timed(store.attempt("x", watch(store)))
        await timed(store.attempt("x", get(store, "x")))
    assert caplog.messages == ["Redis is away: BusyLoadingError: Redis is loading the dataset in memory"]


async def test_a_demoted_master_is_asked_for_its_name_again(shared_redis: RedisServer) -> None:
    with RedisServer(appendonly="no") as server:
        async with stores_at(server.url) as stores:
            store = stores()
            before = await store.client.client_id()
            server.command("REPLICAOF", "127.0.0.1", "1")
            await timed(store.attempt("x", hset(store)))
            server.command("REPLICAOF", "NO", "ONE")
            await store.attempt("x", hset(store))
            assert await store.client.client_id() != before, "a new connection, so the name was looked up anew"


@pytest.mark.parametrize(
    ("url", "kind", "options"),
    [
        ("redis://h", "Connection", {"host": "h"}),
        ("redis://user:p%40ss@h:1/3", "Connection", {"username": "user", "password": "p@ss", "port": 1, "db": 3}),
        ("rediss://h:1", "SSLConnection", {"host": "h", "port": 1}),
        ("unix:///run/redis.sock?db=2", "UnixDomainSocketConnection", {"path": "/run/redis.sock", "db": 2}),
        ("redis+sentinel://h/m", "SentinelManagedConnection", {"db": 0, "password": None}),
        (
            "redis+sentinel://u:p%40s@h,i:1/m/4",
            "SentinelManagedConnection",
            {"db": 4, "username": "u", "password": "p@s"},
        ),
        ("redis+sentinel://h/m?ssl=true", "SentinelManagedSSLConnection", {"db": 0}),
    ],
)
async def test_urls(url: str, kind: str, options: dict[str, object]) -> None:
    store = open_store(url)
    pool = store.client.connection_pool
    assert pool.connection_class.__name__ == kind
    assert {name: pool.connection_kwargs.get(name) for name in options} == options
    assert pool.connection_kwargs["socket_timeout"] > PATIENCE, "it is taken to be away before the attempt gives up"
    await store.close()


async def test_sentinels_are_told_apart_and_may_have_a_password() -> None:
    store = open_store("redis+sentinel://[::1]:5,h/m?sentinel_password=p&ssl=true")
    sentinels = [
        client.connection_pool.connection_kwargs for client in store.client.connection_pool.sentinel_manager.sentinels
    ]
    assert [(each["host"], each["port"], each["password"]) for each in sentinels] == [
        ("::1", 5, "p"),
        ("h", 26379, "p"),
    ]
    assert {
        c.connection_pool.connection_class.__name__ for c in store.client.connection_pool.sentinel_manager.sentinels
    } == {"SSLConnection"}
    await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://h",
        "redis://h:port",
        "redis://:s3c/r3t@h:1",  # a slash that is not encoded
        "redis://[::1",
        "redis://h?db=zero",
        "redis://h?bogus=1",
        "redis+sentinel://h",
        "redis+sentinel:///m",
        "redis+sentinel://h:port/m",
        "redis+sentinel://h/m/zero",
        "redis+sentinel://h/m?sentinel_pasword=s3c",
    ],
)
def test_wrong_urls_are_explained_without_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert caught.value.message.startswith("REDIS_URL cannot be understood. It reads redis://")
    assert "s3c" not in str(caught.value)
    assert caught.value.__suppress_context__


def sentinel_of(master: RedisServer, tmp_path: Path) -> tuple[RedisServer, int]:
    """One that is being started; to be killed."""
    config, sentinel = tmp_path / "sentinel.conf", RedisServer(appendonly="no")
    config.write_text(f"sentinel monitor m 127.0.0.1 {master.port} 1\nsentinel down-after-milliseconds m 60000\n")
    words = f"redis-server {config} --sentinel --port {sentinel.port} --bind 127.0.0.1 --dir {tmp_path}"
    sentinel._process = subprocess.Popen(words.split(), stdout=subprocess.DEVNULL)
    return sentinel, sentinel.port


async def test_a_sentinel_that_hangs_does_not_hide_the_others(tmp_path: Path) -> None:
    """Its host is lost, and all that comes for it."""
    with socket.create_server(("127.0.0.1", 0)) as hole, RedisServer(appendonly="no") as master:
        sentinel, port = sentinel_of(master, tmp_path)
        try:
            sentinel._await_answer()
            async with stores_at(f"redis+sentinel://127.0.0.1:{hole.getsockname()[1]},127.0.0.1:{port}/m") as stores:
                await stores().attempt("x", stores().client.set("x", "one"))
        finally:
            sentinel.kill()


async def test_sentinel_finds_the_master_and_its_successor(tmp_path: Path) -> None:
    with RedisServer(appendonly="no") as one, RedisServer(appendonly="no") as two:
        sentinel, port = sentinel_of(one, tmp_path)
        try:
            sentinel._await_answer()
            async with stores_at(f"redis+sentinel://127.0.0.1:{port}/m") as stores:
                store = stores()
                line = store.line(5.0)
                await store.attempt("x", store.client.set("x", "one"))
                assert await line.ask([command("GET", "x")]) == ["one"]
                sentinel.command("SENTINEL", "REMOVE", "m")
                sentinel.command("SENTINEL", "MONITOR", "m", "127.0.0.1", str(two.port), "1")
                one.command("REPLICAOF", "127.0.0.1", str(two.port))
                with contextlib.suppress(StoreAway):
                    await store.attempt("x", hset(store))
                await store.attempt("x", store.client.set("y", "two"))
                with contextlib.suppress(RedisError):
                    await line.ask([command("SET", "z", "nowhere")])
                assert await line.ask([command("GET", "y")]) == ["two"]
            assert "two" in two.command("GET", "y")
        finally:
            sentinel.kill()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.state.store.PATIENCE", 10.0)  # a busy machine's handshake is no outage
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    names = [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run([*made, *names], check=True, capture_output=True)
    tls_port = free_port()
    tls = {"tls-cert-file": str(certificate), "tls-key-file": str(key), "tls-auth-clients": "no"}
    with RedisServer(appendonly="no", **{"tls-port": str(tls_port)}, **tls):
        for url, works in (
            (f"rediss://127.0.0.1:{tls_port}?ssl_ca_certs={certificate}", True),
            (f"rediss://127.0.0.1:{tls_port}", False),
        ):
            async with stores_at(url) as stores:
                store = stores()
                if works:
                    await store.attempt("x", store.client.set("x", "1"))
                else:
                    await timed(store.attempt("x", store.client.set("x", "1")))


async def test_the_embedded_store_is_nobody_elses() -> None:
    one, two = open_store(None), open_store(None)
    assert one.embedded
    await one.client.set("x", "1")
    assert await two.client.get("x") is None
    await one.close()
    await two.close()


async def test_what_is_said_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with stores_at(f"redis://127.0.0.1:{free_port()}") as stores:
        store = stores()
        await timed(store.attempt("x", store.client.get("x")))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_connection_of_ones_own_has_its_own_patience(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        store = stores()
        patient = store.dedicated(2 * PATIENCE)
        await patient.ping()
        await store.client.ping()
        assert patient.connection_pool is not store.client.connection_pool, "a reply may be taken by somebody else"
        redis_server.pause()
        try:
            began = time.monotonic()
            with pytest.raises(RedisTimeout):
                await patient.ping()
            assert 2 * PATIENCE <= time.monotonic() - began < 2 * PATIENCE + SLACK
        finally:
            redis_server.resume()
        assert await patient.ping(), "it does not come back"
        await store.close()
        assert "cmd=ping" not in redis_server.command("CLIENT", "LIST"), "its connection is left open"


def test_a_process_that_was_busy_is_no_redis_that_is_away(redis_server: RedisServer) -> None:
    """Its clock runs on meanwhile, and uvloop looks at that before it looks at its sockets."""

    async def busy() -> bool:
        async with stores_at(redis_server.url) as stores:
            store = stores()
            for _ in range(3):
                await store.attempt("x", store.client.get("x"))
                asking = asyncio.create_task(store.attempt("x", store.client.get("x")))
                await idle()
                time.sleep(1.5 * PATIENCE)
                await asking
            return store.away

    assert uvloop.run(busy()) is False


async def test_in_the_process_there_is_one_connection_for_all(embedded: Stores) -> None:
    store = embedded()
    assert store.dedicated(1.0) is store.client


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, None),
        ({"maxmemory": "100mb"}, None),
        ({"maxmemory_policy": "allkeys-lru"}, None),
        ({"maxmemory": "100mb", "maxmemory_policy": "volatile-ttl"}, "maxmemory-policy is volatile-ttl"),
    ],
    ids=["no limit", "noeviction", "a policy without a limit", "a limit"],
)
async def test_a_redis_that_may_drop_what_it_holds_is_found_out(options: dict[str, str], why: str | None) -> None:
    with RedisServer(appendonly="no", **options) as server:
        async with stores_at(server.url) as stores:
            assert await stores().may_forget() == why


async def test_the_store_in_the_process_drops_nothing_by_a_policy(embedded: Stores) -> None:
    assert await embedded().may_forget() is None


async def test_a_redis_that_does_not_tell_is_not_away() -> None:
    """Where INFO is not for everybody, nothing else may suffer for it."""
    with RedisServer(appendonly="no") as server:
        async with stores_at(server.url) as stores:
            store = stores()
            await store.client.execute_command("ACL", "SETUSER", "default", "-info")
            assert await store.may_forget() is None
            assert not store.away
