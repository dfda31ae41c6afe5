"""Who blocks the event loop is named, once; who only has bad luck is not. Here blocking is the fault itself."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop

from proxy.watchdog import watchdog

pytestmark = pytest.mark.anyio

LIMIT = 0.1  # seconds
LONG = 0.3  # seconds: surely over the limit
BLOCKED = f"the event loop has been blocked for over {LIMIT:g} s, by "
RUNS = "the event loop runs again; it was blocked for about "


@pytest.fixture(autouse=True)
def _all_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO, "proxy.watchdog")
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"], "a thread was left behind"


def sleepy() -> None:
    time.sleep(LONG)


def waits_in_a_library() -> None:
    with pytest.raises(queue.Empty):
        queue.Queue[None]().get(timeout=LONG)


def busy() -> None:
    end = time.process_time() + LONG
    while time.process_time() < end:
        pass


def keeps_the_interpreter() -> None:
    """Calls into C that let no other thread run, as a bad regular expression does; one of them is long enough."""
    used, numbers = 0.0, 10_000_000
    while used < LONG:
        began = time.process_time()
        sum(range(numbers))
        used, numbers = time.process_time() - began, 2 * numbers


async def blocked_by(fault: Callable[[], None]) -> None:
    await asyncio.sleep(LIMIT / 2)  # the watchdog has begun to watch
    fault()
    await asyncio.sleep(LIMIT)


@pytest.mark.parametrize("fault", [sleepy, waits_in_a_library, busy])
async def test_who_blocks_the_loop_is_named(fault: Callable[[], None], caplog: pytest.LogCaptureFixture) -> None:
    with watchdog(LIMIT):
        await blocked_by(fault)
    blocked, runs = caplog.messages
    assert blocked.startswith(f"{BLOCKED}tests.test_watchdog.{fault.__name__}, line ")
    assert ("(in " in blocked) == (fault is waits_in_a_library), "what it waits in is told too"
    assert runs.startswith(RUNS)
    assert LONG - LIMIT <= float(runs.removeprefix(RUNS).split()[0]) < 5
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]


async def test_one_that_does_not_let_go_of_the_interpreter_is_named_too(caplog: pytest.LogCaptureFixture) -> None:
    with watchdog(LIMIT):
        await blocked_by(keeps_the_interpreter)
    assert caplog.messages[0].startswith(f"{BLOCKED}tests.test_watchdog.keeps_the_interpreter, line ")


async def test_a_generator_deep_inside_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def stream() -> Iterator[int] | None:  # what a plugin's adapter looks like
        await asyncio.sleep(0)
        time.sleep(LONG)
        return None

    with watchdog(LIMIT):
        await asyncio.gather(stream(), asyncio.sleep(LIMIT))
    place = "tests.test_watchdog.test_a_generator_deep_inside_is_named.<locals>.stream, line "
    assert caplog.messages[0].startswith(BLOCKED + place)


async def test_each_blockage_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with watchdog(LIMIT):
        await blocked_by(sleepy)
        await blocked_by(sleepy)
    assert [message.split(",")[0].split(";")[0] for message in caplog.messages] == [
        BLOCKED.split(",")[0],
        RUNS.split(";")[0],
    ] * 2


async def test_who_is_quick_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with watchdog(2 * LONG):
        await blocked_by(sleepy)
    assert caplog.messages == []


async def test_several_watch_one_loop(caplog: pytest.LogCaptureFixture) -> None:
    with watchdog(LIMIT):
        with watchdog(LIMIT):
            await asyncio.sleep(0)
        with watchdog(3600):
            await blocked_by(sleepy)
    assert len(caplog.messages) == 2


def test_several_watch_a_loop_each(caplog: pytest.LogCaptureFixture) -> None:
    async def watched(fault: Callable[[], None]) -> None:
        with watchdog(LIMIT):
            await blocked_by(fault)

    threads = [threading.Thread(target=asyncio.run, args=(watched(fault),)) for fault in (sleepy, waits_in_a_library)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    blocked = sorted(message for message in caplog.messages if message.startswith(BLOCKED))
    assert [".sleepy" in blocked[0], ".waits_in_a_library" in blocked[1]] == [True, True]
    assert len(caplog.messages) == 4


@pytest.mark.parametrize("fault", [sleepy, waits_in_a_library])
def test_uvloop_has_no_frames_of_its_own(fault: Callable[[], None], caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with watchdog(LIMIT):
            asyncio.get_running_loop().call_later(0.01, fault)
            await asyncio.sleep(LONG)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert caplog.messages[0].startswith(f"{BLOCKED}tests.test_watchdog.{fault.__name__}, line ")


async def test_it_costs_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, ticks, looks, later = asyncio.get_running_loop(), 0, 0, asyncio.get_running_loop().call_later

    def call_later(delay: float, tick: Callable[[], None]) -> asyncio.TimerHandle:
        nonlocal ticks
        ticks += 1
        return later(delay, tick)

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal looks
            looks += 1
            return super().wait(timeout)

    over = asyncio.Event()
    later(10 * LIMIT, over.set)
    monkeypatch.setattr(loop, "call_later", call_later)
    with monkeypatch.context() as patch, watchdog(LIMIT):
        patch.setattr(threading, "Event", Event)
        await over.wait()
    assert ticks <= 31, "three of the loop's wake-ups a `limit`"
    assert looks <= 31, "and of the thread's"
