"""Which addresses are safe, and the order of a farewell. How it looks from outside: scenarios/test_shutdown.py."""

import asyncio
import re
import resource
import signal
from pathlib import Path

import pytest

from proxy.errors import ConfigError
from proxy.server import Farewell, check_exposure
from proxy.settings import Settings
from proxy.testing import ScriptedUpstream, text
from proxy.weir import Weir
from tests.process import weir
from tests.server import chat, serving

pytestmark = pytest.mark.anyio

KEYS = Settings.from_environment({"WEIR_API_KEYS": "a-key", "WEIR_ADMIN_KEY": "another"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_without_keys_loopback_is_fine(host: str) -> None:
    check_exposure(Settings(), host, 1)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "weir.example", "", "localhost.example"])
def test_without_keys_nothing_else_is(host: str) -> None:
    with pytest.raises(ConfigError, match="WEIR_API_KEYS"):
        check_exposure(Settings(), host, 1)
    check_exposure(KEYS, host, 1)


def test_several_workers_need_redis() -> None:
    with pytest.raises(ConfigError, match="REDIS_URL"):
        check_exposure(KEYS, "127.0.0.1", 2)
    check_exposure(Settings.from_environment({"REDIS_URL": "redis://localhost"}), "127.0.0.1", 2)


class Stage:
    """A Weir that notes what is done to it; `stopped` is set with the server's stop."""

    def __init__(self, drain: float, grace: float):
        self.settings = Settings(drain=drain, grace=grace)
        self.draining = False
        self.done: list[str] = []
        self.server_stopped, self.streams_stopped = asyncio.Event(), asyncio.Event()

    def leave(self, grace: float) -> None:
        self.done.append(f"leave {grace:g}")

    def stop_streams(self, reason: str) -> None:
        self.done.append("streams")
        self.streams_stopped.set()

    def stop_server(self, sig: int) -> None:
        self.done.append("server")
        self.server_stopped.set()

    def farewell(self) -> Farewell:
        stage: Weir = self  # type: ignore[assignment]
        return Farewell(stage, self.stop_server)


async def test_sigterm_drains_then_stops_the_server_then_the_streams() -> None:
    stage = Stage(drain=0.01, grace=0.01)
    stage.farewell().say(signal.SIGTERM)
    assert stage.draining, "not ready must be said at once"
    assert not stage.done, "the server must go on serving for a while"
    await asyncio.wait_for(stage.streams_stopped.wait(), 5)
    assert stage.done == ["leave 0.01", "server", "streams"]


async def test_sigint_waits_for_nothing() -> None:
    stage = Stage(drain=3600, grace=3600)
    stage.farewell().say(signal.SIGINT)
    await asyncio.wait_for(stage.streams_stopped.wait(), 5)
    assert stage.done == ["leave 0", "server", "streams"]


async def test_a_second_signal_ends_the_waiting() -> None:
    stage = Stage(drain=3600, grace=3600)
    farewell = stage.farewell()
    farewell.say(signal.SIGTERM)
    await asyncio.sleep(0)
    farewell.say(signal.SIGTERM)
    await asyncio.wait_for(stage.streams_stopped.wait(), 5)
    assert stage.done == ["leave 0", "server", "streams"]


async def test_ready_is_503_while_draining() -> None:
    async with serving() as server:
        assert (await server.ask("GET", "/health/ready")).status == 200
        server.weir.draining = True
        assert (await server.ask("GET", "/health/ready")).status == 503
        assert (await server.ask("GET", "/health/live")).status == 200


async def test_it_opens_as_many_files_as_it_may(tmp_path: Path) -> None:
    """A stream holds two; the 1,024 that a shell or systemd gives are a default, not the limit."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), most))
    try:
        async with weir(tmp_path) as served:
            limits = Path(f"/proc/{served.process.pid}/limits").read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
    assert re.search(rf"Max open files +{most} ", limits), limits


async def test_a_connection_is_not_kept_alive_while_draining() -> None:
    """Its next request would come as it is closed, and be lost; whoever keeps one for long does not ask a balancer."""
    async with serving() as server, ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        for draining, said in ((False, None), (True, "close")):
            server.weir.draining = draining
            assert (await server.ask("GET", "/health/ready")).headers.get("connection") == said
            assert (await server.ask("POST", "/v1/chat/completions", chat())).headers.get("connection") == said
            async with server.stream(chat()) as stream:
                assert (await stream.read()).endswith(b"data: [DONE]\n\n")
                assert stream.headers.get("connection") == said
