"""A control reaches the replica that holds the stream, and its answer comes back; or it is said that it did not."""

import asyncio
import logging
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.client import PubSub

from proxy.errors import RequestError, Stopped, StoreAway, WeirError
from proxy.state import controls
from proxy.state.controls import ControlBus
from proxy.state.store import Store
from tests.redis_server import RedisServer, free_port
from tests.state.stores import Stores, stores_at

pytestmark = pytest.mark.anyio

Message = dict[str, Any]
RECOVERY = 2.0  # seconds from Redis' return until controls arrive again


async def echo(message: Message) -> Message:
    return {"done": message}


async def hang(message: Message) -> Message:
    await asyncio.Event().wait()
    raise AssertionError("never happens")


async def refuse(message: Message) -> Message:
    raise RequestError("there is no such stream", status=404, code="stream_not_found", param="id")


async def fail(message: Message) -> Message:
    raise KeyError("sk-secret")


@asynccontextmanager
async def replicas(stores: Stores, *acts: Callable[[Message], Awaitable[Message]]) -> AsyncIterator[list[ControlBus]]:
    """One replica for each of `acts`, named r0, r1 ..."""
    buses = [ControlBus(stores(), f"r{number}", act) for number, act in enumerate(acts)]
    for bus in buses:
        await bus.start()
    try:
        yield buses
    finally:
        for bus in buses:
            await bus.close()


@pytest.fixture
async def shared(shared_redis: RedisServer) -> AsyncIterator[Stores]:
    async with stores_at(shared_redis.url) as stores:
        yield stores


async def until(true: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)


async def answered(bus: ControlBus, replica: str, seconds: float) -> float:
    """How long it took until a control was answered again. As a fleet does, `bus` looks often whether Redis is back."""
    began = time.monotonic()
    while True:
        try:
            if await bus.send(replica, {"again": True}, 0.5) is not None:
                return time.monotonic() - began
        except (StoreAway, TimeoutError):
            pass
        assert time.monotonic() - began < seconds, f"no control arrived within {seconds:g} s"
        await asyncio.sleep(0.02)
        await ping(bus._store)


async def ping(store: Store) -> None:
    try:
        await store.attempt("x", store.client.get("x"))
    except StoreAway:
        return
    store.back()


async def test_a_control_and_its_answer(shared: Stores) -> None:
    async with replicas(shared, echo, echo) as (here, there):
        assert await here.send("r1", {"cancel": "s1", "ü": [1, None]}, 5) == {"done": {"cancel": "s1", "ü": [1, None]}}
        assert await there.send("r0", {"pause": "s2"}, 5) == {"done": {"pause": "s2"}}
        assert not here._waiting


async def test_many_at_once_get_each_their_own_answer(shared: Stores) -> None:
    async with replicas(shared, echo, echo, echo) as (here, _, _):
        asked = [here.send(f"r{1 + n % 2}", {"n": n}, 5) for n in range(64)]
        assert await asyncio.gather(*asked) == [{"done": {"n": n}} for n in range(64)]


async def test_our_own_streams_need_no_redis() -> None:
    async with stores_at(f"redis://127.0.0.1:{free_port()}") as stores, replicas(stores, echo) as (here,):
        assert await here.send("r0", {"cancel": "s1"}, 5) == {"done": {"cancel": "s1"}}


async def test_a_replica_that_is_gone_is_known_at_once(shared: Stores) -> None:
    async with replicas(shared, echo, echo) as (here, there):
        await there.close()
        began = time.monotonic()
        assert await here.send("r1", {}, 5) is None
        assert await here.send("never-was", {}, 5) is None
        assert time.monotonic() - began < 1


async def test_other_proxies_on_the_same_redis_hear_nothing(shared_redis: RedisServer) -> None:
    url = shared_redis.url
    async with (
        stores_at(url) as ours,
        stores_at(url) as theirs,
        replicas(ours, echo) as (here,),
        replicas(theirs, echo, echo),
    ):
        assert await here.send("r1", {}, 5) is None


async def test_the_embedded_store_knows_nobody_else(embedded: Stores) -> None:
    async with replicas(embedded, echo, echo) as (here, there):
        assert await here.send("r1", {}, 5) is None
        assert await there.send("r1", {"pause": "s1"}, 5) == {"done": {"pause": "s1"}}
        assert here._task is None


async def test_one_that_hangs_leaves_nothing_behind(shared: Stores) -> None:
    async with replicas(shared, echo, hang) as (here, there):
        with pytest.raises(TimeoutError):
            await here.send("r1", {}, 0.1)
        assert not here._waiting
        await until(lambda: not there._acting, 1)
        with pytest.raises(TimeoutError):
            await there.send("r1", {}, 0.1)


async def test_who_gives_up_waiting_leaves_nothing_behind(shared: Stores) -> None:
    async with replicas(shared, echo, hang) as (here, there):
        asking = asyncio.create_task(here.send("r1", {}, 60))
        await until(lambda: bool(there._acting))
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        assert not here._waiting


async def test_an_answer_that_comes_too_late_is_nobodys(shared: Stores, caplog: pytest.LogCaptureFixture) -> None:
    late, answers = asyncio.Event(), iter("ab")

    async def slow(message: Message) -> Message:
        answer = next(answers)
        try:
            await late.wait()
        except asyncio.CancelledError:
            await late.wait()  # an act that will not be stopped
        return {"answer": answer}

    async with replicas(shared, echo, slow) as (here, there):
        with pytest.raises(TimeoutError):
            await here.send("r1", {}, 0.1)
        again = asyncio.create_task(here.send("r1", {}, 5))
        await until(lambda: len(there._acting) == 2)
        late.set()
        assert await again == {"answer": "b"}
    assert caplog.messages == []


async def test_a_refusal_comes_back_as_one(shared: Stores) -> None:
    async with replicas(shared, refuse, refuse) as (here, _):
        for replica in ("r0", "r1"):
            with pytest.raises(WeirError) as caught:
                await here.send(replica, {}, 5)
            assert (caught.value.status, caught.value.code, caught.value.param) == (404, "stream_not_found", "id")
            assert caught.value.message == "there is no such stream"


async def test_a_failure_is_said_here_and_explained_there(shared: Stores, caplog: pytest.LogCaptureFixture) -> None:
    async with replicas(shared, echo, fail) as (here, _):
        with pytest.raises(WeirError, match="replica r1 failed; its log has the details") as caught:
            await here.send("r1", {}, 5)
        assert caught.value.status == 500
    assert caplog.messages == ["a control failed"]


async def test_garbage_is_ignored_with_a_line_in_the_log(
    shared: Stores, shared_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    garbage = ["", "{", "7", '{"type":"control"}', '{"type":"sung"}']
    async with replicas(shared, echo, echo) as (here, there):
        for message in garbage:
            await there._store.client.publish(there._store.key("control", "r1"), message)
        assert await here.send("r1", {"n": 1}, 5) == {"done": {"n": 1}}, "garbage kept a control from arriving"
    assert len(caplog.messages) == len(garbage)
    assert all("is no control" in line and len(line) < 100 for line in caplog.messages)


async def test_who_waits_for_an_answer_is_told_of_a_shutdown(shared: Stores) -> None:
    async with replicas(shared, echo, hang) as (here, there):
        asking = asyncio.create_task(here.send("r1", {}, 60))
        await until(lambda: bool(there._acting))
        await here.close()
        with pytest.raises(Stopped):
            await asking


async def test_without_redis_it_is_said_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async with stores_at(f"redis://:s3cr3t@127.0.0.1:{free_port()}") as stores, replicas(stores, echo) as (here,):
        began = time.monotonic()
        with pytest.raises(StoreAway, match="a control for a stream on another replica needs Redis"):
            await here.send("r1", {}, 5)
        assert time.monotonic() - began < 0.1
        await until(lambda: bool(caplog.messages))
    assert len(caplog.messages) == 1, "an outage is said once"
    assert caplog.messages[0].startswith("controls from other replicas do not arrive: ConnectionError: ")
    assert "s3cr3t" not in caplog.text


async def test_a_redis_that_was_killed_is_found_again(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with stores_at(redis_server.url) as stores, replicas(stores, echo, echo, hang) as (here, there, third):
        waiting = asyncio.create_task(here.send("r2", {}, 60))
        await until(lambda: bool(here._waiting))
        redis_server.kill()
        with pytest.raises(StoreAway):
            await waiting
        with pytest.raises(StoreAway):
            await here.send("r1", {}, 5)
        redis_server.start()
        assert await answered(here, "r1", RECOVERY) < RECOVERY
        assert await answered(there, "r0", RECOVERY) < RECOVERY
        await until(third._listening.is_set, RECOVERY)
    said = [record.message for record in caplog.records if record.name == controls.__name__]
    assert sum("do not arrive" in line for line in said) == 3, "each of three replicas says it once"
    assert sum("arrive again" in line for line in said) == 3


async def test_away_at_start_and_then_there() -> None:
    with RedisServer(appendonly="no") as server:
        server.kill()
        async with stores_at(server.url) as stores, replicas(stores, echo, echo) as (here, _):
            with pytest.raises(StoreAway):
                await here.send("r1", {}, 5)
            server.start()
            assert await answered(here, "r1", RECOVERY) < RECOVERY


async def test_a_redis_that_only_hangs_keeps_its_listeners(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores, replicas(stores, echo, echo) as (here, there):
        redis_server.pause()
        try:
            with pytest.raises(StoreAway):
                await here.send("r1", {}, 5)
        finally:
            redis_server.resume()
        await ping(here._store)
        assert await here.send("r1", {"n": 1}, 5) == {"done": {"n": 1}}
        assert there._listening.is_set()


async def test_a_quiet_subscription_stays(shared: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    pings, ping = 0, PubSub.ping

    async def counted(pubsub: PubSub) -> None:
        nonlocal pings
        pings += 1
        await ping(pubsub)

    monkeypatch.setattr(controls, "QUIET", 0.02)
    monkeypatch.setattr(PubSub, "ping", counted)
    async with replicas(shared, echo) as (there,):
        await until(lambda: pings >= 5)
        assert there._listening.is_set()


async def test_a_connection_that_swallows_everything_is_left(
    shared: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def swallowed(_: PubSub) -> None:
        pass

    async with replicas(shared, echo):
        monkeypatch.setattr(controls, "QUIET", 0.05)
        monkeypatch.setattr(PubSub, "ping", swallowed)
        await until(lambda: "controls from other replicas arrive again" in caplog.messages)
    assert "controls from other replicas do not arrive: ConnectionError: the subscription is silent" in caplog.messages


async def test_a_password_is_given() -> None:
    with RedisServer(appendonly="no", requirepass="s3cr3t") as server:
        async with stores_at(server.url) as stores, replicas(stores, echo, echo) as (here, _):
            assert await here.send("r1", {}, 5) == {"done": {}}


async def test_a_user_who_may_not_listen_is_told_why(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(appendonly="no") as server:
        server.command("ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "resetchannels")
        async with stores_at(f"redis://u:p@127.0.0.1:{server.port}") as stores, replicas(stores, echo) as (here,):
            with pytest.raises(StoreAway):
                await here.send("r1", {}, 5)
            assert not here._store.away, "all else works"
    assert "NoPermissionError" in caplog.messages[0]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("controls", "store"):  # several handshakes on one event loop, each 40 ms of CPU, are no outage
        monkeypatch.setattr(f"proxy.state.{module}.PATIENCE", 10.0)
    key, certificate, port = tmp_path / "key.pem", tmp_path / "cert.pem", free_port()
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    names = f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run([*made.split(), *names.split()], check=True, capture_output=True)
    tls = {"tls-port": str(port), "tls-cert-file": str(certificate), "tls-key-file": str(key), "tls-auth-clients": "no"}
    with RedisServer(appendonly="no", **tls):
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}"
        async with stores_at(url) as stores, replicas(stores, echo, echo) as (here, _):
            assert await here.send("r1", {}, 5) == {"done": {}}


async def test_sentinels_new_master_is_followed(tmp_path: Path) -> None:
    config, port = tmp_path / "sentinel.conf", free_port()
    with RedisServer(appendonly="no") as one, RedisServer(appendonly="no") as two:
        config.write_text(f"sentinel monitor m 127.0.0.1 {one.port} 1\nsentinel down-after-milliseconds m 60000\n")
        words = f"redis-server {config} --sentinel --port {port} --bind 127.0.0.1 --dir {tmp_path}"
        sentinel = RedisServer()
        sentinel.port = port
        sentinel._process = subprocess.Popen(words.split(), stdout=subprocess.DEVNULL)
        try:
            sentinel._await_answer()
            url = f"redis+sentinel://127.0.0.1:{port}/m"
            async with stores_at(url) as stores, replicas(stores, echo, echo) as (here, _):
                assert await here.send("r1", {}, 5) == {"done": {}}
                sentinel.command("SENTINEL", "REMOVE", "m")
                sentinel.command("SENTINEL", "MONITOR", "m", "127.0.0.1", str(two.port), "1")
                one.kill()
                assert await answered(here, "r1", RECOVERY) < RECOVERY
                assert "control:r1" in two.command("PUBSUB", "CHANNELS")
        finally:
            sentinel.kill()


async def test_what_is_said_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with stores_at(f"redis://127.0.0.1:{free_port()}") as stores, replicas(stores, echo):
        await until(lambda: bool(caplog.messages))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
