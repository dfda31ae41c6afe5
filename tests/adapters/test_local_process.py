"""The engine's life: real kills, no waiting for a clock, and no process that is left."""

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from proxy.adapters import local_process
from proxy.adapters.local import PACKAGED, LocalAdapter, engine_plan
from proxy.errors import Kind, ProviderError
from proxy.events import Finish, TextDelta
from proxy.testing import play, text_of
from tests.adapters import local_engines
from tests.adapters.local_engines import (
    BRIEF,
    ENDLESS,
    STORY,
    Clock,
    Make,
    config_of,
    engines,
    failure_of,
    kill,
    needs_engine,
    noticed,
    started,
)

pytestmark = [pytest.mark.anyio, needs_engine]

clock, make, adapter = local_engines.clock, local_engines.make, local_engines.adapter  # the fixtures

ROOT = Path(local_process.__file__).parents[2]

DEEP = "^((((a{0,100}){0,100}){0,100}){0,100})$"  # what llama.cpp works on for longer than anybody lives

PARENT = f"""
import asyncio, aiohttp
from proxy.adapters.local import LocalAdapter
from proxy.provider import ProviderConfig

async def main():
    config = ProviderConfig(provider_id="a", provider_type="local", model_name="{PACKAGED}")
    async with aiohttp.ClientSession() as session:
        adapter = LocalAdapter(config, session)
        await adapter.create_model()
        await adapter.endpoint()
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

BETWEEN = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-P", {local_process.PROGRAM!r}]).wait()
"""


def sockets(process: int | str) -> set[str]:
    links = [os.readlink(fd) for fd in Path(f"/proc/{process}/fd").iterdir() if fd.is_symlink()]
    return {link for link in links if link.startswith("socket")}


def seen_from_outside(process: int, place: str) -> bytes:
    return Path(f"/proc/{process}/{place}").read_bytes()


def ends(pidfd: int) -> bool:
    """Whether the process ends within five seconds."""
    return bool(select.select([pidfd], [], [], 5)[0])


# --- its life


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])
async def test_under_uvloop_it_inherits_nothing(adapter: LocalAdapter) -> None:
    assert "uvloop" in type(asyncio.get_running_loop()).__module__
    with socket.socket() as listening:
        listening.set_inheritable(True)  # as uvicorn's are
        assert text_of(await play(adapter.stream_chat(STORY, **BRIEF)))
        (engine,) = engines()
        assert not sockets("self") & sockets(engine), "the engine holds sockets of Weir's"
    assert await kill(adapter) == 0.5


async def test_only_weir_may_ask_it(adapter: LocalAdapter) -> None:
    url, headers = await adapter.endpoint()
    async with adapter.session.post(url, json={"messages": STORY}) as response:
        assert response.status == 401
    (engine,) = engines()
    key = headers["authorization"].removeprefix("Bearer ").encode()
    for place in ("cmdline", "environ"):
        assert key not in seen_from_outside(engine, place), f"the key stands in the engine's {place}"


async def test_the_first_streams_share_one_engine(adapter: LocalAdapter) -> None:
    assert engines() == [], "it started before it was needed"
    answers = await asyncio.gather(*(play(adapter.stream_chat(STORY, **BRIEF)) for _ in range(3)))
    assert len(engines()) == 1
    assert [isinstance(events[-1], Finish) for events in answers] == [True] * 3


async def test_the_start_goes_on_without_those_who_asked(adapter: LocalAdapter) -> None:
    first = asyncio.create_task(adapter.endpoint())
    begun = await started()
    first.cancel()
    await adapter.endpoint()
    assert engines() == begun, "an impatient client made it start again"


async def test_a_killed_engine_cuts_the_stream_and_comes_back(adapter: LocalAdapter, clock: Clock) -> None:
    stream = adapter.stream_chat(STORY, **ENDLESS)
    while not isinstance(await anext(stream), TextDelta):
        pass
    (first,) = engines()
    os.kill(first, signal.SIGKILL)
    with pytest.raises(ProviderError) as caught:
        await play(stream)
    assert caught.value.kind is Kind.CUT
    assert (await noticed(adapter)).retry_after == 0.5
    assert (await failure_of(adapter)).message == "the engine died (signal 9); it restarts in 0.5 s"
    assert engines() == [], "it restarted at once"
    clock.now += 0.5
    assert isinstance((await play(adapter.stream_chat(STORY, **BRIEF)))[-1], Finish)
    assert engines() != [first]


async def test_one_that_is_stuck_is_ended_and_comes_back(
    adapter: LocalAdapter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_process, "LONGEST_SILENCE", 2.0)
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": DEEP}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    assert (await failure_of(adapter, response_format=wanted)).kind in (Kind.CUT, Kind.CONNECT)
    await noticed(adapter)
    assert (await failure_of(adapter)).message == "the engine died (it was stuck for 2 s); it restarts in 0.5 s"
    clock.now += 0.5
    assert isinstance((await play(adapter.stream_chat(STORY, **BRIEF)))[-1], Finish)


async def test_one_that_dies_young_waits_longer_each_time(adapter: LocalAdapter, clock: Clock) -> None:
    for pause in (0.5, 1.0, 2.0):
        await adapter.endpoint()
        assert await kill(adapter) == pause
        clock.now += pause
    await play(adapter.stream_chat(STORY, **BRIEF))
    assert await kill(adapter) == 0.5, "it had served a stream to its end"
    clock.now += 0.5
    await adapter.endpoint()
    clock.now += 60
    assert await kill(adapter) == 0.5, "it had lived for a minute"


async def test_a_file_that_is_no_model_says_so_and_is_tried_ever_less(make: Make, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "junk.gguf").write_text("junk")
    adapter = make(model_name="junk", path=str(tmp_path / "junk.gguf"))
    await adapter.create_model()
    pauses = []
    for _ in range(8):
        failure = await failure_of(adapter)
        assert failure.kind is Kind.CONNECT
        assert "the engine did not start: " in failure.message
        assert "invalid magic" in failure.message, "llama.cpp's reason is lost"
        assert str(tmp_path) not in failure.message
        assert failure.retry_after is not None
        pauses.append(failure.retry_after)
        clock.now += failure.retry_after
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]


async def test_a_stream_that_is_closed_stops_the_model(make: Make) -> None:
    adapter = make(parallel=1)
    await adapter.create_model()
    async with aclosing(adapter.stream_chat(STORY, **ENDLESS)) as stream:
        while not isinstance(await anext(stream), TextDelta):
            pass
    try:
        async with asyncio.timeout(10):
            await play(adapter.stream_chat(STORY, **BRIEF))
    except TimeoutError:
        pytest.fail("the engine's only place is still taken by a stream that was closed")


# --- its end


async def test_close_ends_it_and_whoever_uses_it(adapter: LocalAdapter) -> None:
    stream = adapter.stream_chat(STORY, **ENDLESS)
    await anext(stream)
    await adapter.close()
    assert engines() == []
    with pytest.raises(ProviderError) as caught:
        await play(stream)
    assert caught.value.kind is Kind.CUT
    assert (await failure_of(adapter)).message == "the engine was shut down"


@pytest.mark.parametrize("turns", [0, 1, 5])
async def test_close_ends_a_start(adapter: LocalAdapter, turns: int) -> None:
    waiting = asyncio.create_task(adapter.endpoint())
    for _ in range(1 + turns):
        await asyncio.sleep(0)
    await adapter.close()
    assert engines() == []
    with pytest.raises(ProviderError, match="the engine was shut down"):
        async with asyncio.timeout(5):
            await waiting


def test_it_dies_with_weir() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE) as weir:
        assert weir.stdout is not None
        assert weir.stdout.readline() == b"up\n"
        (engine,) = engines(weir.pid)
        watch = os.pidfd_open(engine)
        weir.kill()
    try:
        assert ends(watch), "the engine lives on after Weir was killed"
    finally:
        os.close(watch)


def test_it_dies_with_weir_even_if_its_stdin_stays_open() -> None:
    plan = json.dumps({**engine_plan(config_of()), "key": "k", "patience": 60}).encode()
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", BETWEEN], stdin=pipe, stdout=pipe) as weir:
        assert weir.stdin is not None
        assert weir.stdout is not None
        weir.stdin.write(plan + b"\n")
        weir.stdin.flush()
        assert os.read(weir.stdout.fileno(), 100).startswith(b"http://127.0.0.1:")
        (engine,) = engines(weir.pid)
        watch = os.pidfd_open(engine)
        weir.kill()
        try:
            assert ends(watch), "the engine did not get the signal at its parent's death"
        finally:
            os.close(watch)
