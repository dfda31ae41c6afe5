"""Who waits too long is interrupted, who is told to stop is interrupted, and nobody else's cancel is taken for that."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any
from unittest.mock import Mock

import pytest

from proxy.deadline import AGAIN, Deadline
from tests.journeys import idle, skip

pytestmark = pytest.mark.anyio


async def waits(deadline: Deadline, seconds: float = 60.0) -> str:
    """One wait for what never comes, and how it ended."""
    deadline.expect(seconds)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if not deadline.interrupted():
            raise
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0, "a cancel of the deadline's own was not taken back"
        return "timeout" if deadline.fired else f"stopped: {deadline.stopped}"
    raise AssertionError("the wait ended by itself")


async def begun(work: Coroutine[Any, Any, str]) -> asyncio.Task[str]:
    task = asyncio.create_task(work)
    await idle()
    return task


async def test_a_wait_has_a_limit() -> None:
    task = await begun(waits(Deadline()))
    skip(59)
    await idle()
    assert not task.done(), "interrupted before its time"
    skip(2)
    assert await task == "timeout"


async def test_a_real_timer_does_it_too() -> None:
    assert await waits(Deadline(), 0.02) == "timeout"


async def test_tokens_cost_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline, loop = Deadline(), asyncio.get_running_loop()
    armed = Mock(wraps=loop.call_at)
    monkeypatch.setattr(loop, "call_at", armed)
    deadline.restart(900)
    deadline.expect(120)
    for _ in range(1000):
        deadline.received()
        deadline.expect(60)
    deadline.close()
    assert armed.call_count == 2, f"{armed.call_count} timers for 1000 tokens; one for the first, one for the rest"


async def test_the_limit_is_of_each_wait_not_of_all() -> None:
    deadline = Deadline()

    async def three() -> str:
        for _ in range(3):
            deadline.expect(60)
            skip(59)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            deadline.received()
        return await waits(deadline)

    task = await begun(three())
    await idle()
    assert not task.done(), "short waits were added up"
    skip(61)
    assert await task == "timeout"


async def test_the_total_adds_waits_up_but_not_the_time_between_them() -> None:
    deadline = Deadline()

    async def reads() -> str:
        deadline.restart(100)
        for _ in range(3):
            deadline.expect(60)
            skip(30)
            deadline.received()
            skip(1000)  # whoever reads us takes his time
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return await waits(deadline)

    task = await begun(reads())
    await idle()
    assert not task.done(), "time in which nobody waited was counted"
    skip(9)
    await idle()
    assert not task.done(), "the total is 100 s, and 99 have passed"
    skip(2)
    assert await task == "timeout"


async def test_a_new_attempt_has_all_its_time() -> None:
    deadline = Deadline()
    deadline.restart(10)
    assert await waits(deadline, 0.01) == "timeout"
    deadline.restart(10)
    assert not deadline.fired, "the last attempt's time-out was taken for this one's"
    task = await begun(waits(deadline))
    skip(9)
    await idle()
    assert not task.done()
    skip(2)
    assert await task == "timeout"


async def test_stop_ends_a_wait_at_once() -> None:
    deadline = Deadline()
    task = await begun(waits(deadline))
    deadline.stop("drained")
    deadline.stop("again")
    assert await task == "stopped: drained"


async def test_stop_between_waits_ends_the_next() -> None:
    deadline = Deadline()
    deadline.expect(60)
    deadline.received()
    deadline.stop("drained")
    with pytest.raises(asyncio.CancelledError):
        deadline.expect(60)
    assert deadline.interrupted()
    assert deadline.stopped == "drained"


async def test_stop_after_a_timeout_is_not_forgotten() -> None:
    deadline = Deadline()
    task = await begun(waits(deadline))
    skip(61)
    for _ in range(5):
        await asyncio.sleep(0)
        if deadline.fired:
            break
    deadline.stop("drained")
    assert await task == "timeout", "what came first is what happened"
    with pytest.raises(asyncio.CancelledError):
        deadline.expect(60)


async def test_anothers_cancel_passes() -> None:
    task = await begun(waits(Deadline()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("first", ["theirs", "ours"])
async def test_anothers_cancel_in_the_same_tick_wins(first: str) -> None:
    deadline = Deadline()
    task = await begun(waits(deadline))
    for cancel in (task.cancel, lambda: deadline.stop("drained"))[:: 1 if first == "theirs" else -1]:
        cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancel_survived_long_ago_is_no_cancel_of_today() -> None:
    deadline = Deadline()

    async def survivor() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()  # and does not take it back
        deadline.expect(0.01)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return str(deadline.interrupted())
        return "?"

    task = await begun(survivor())
    task.cancel()
    assert await task == "True", "a time-out was taken for somebody else's cancel"


async def test_a_result_in_the_tick_of_the_timer_is_late() -> None:
    deadline, result = Deadline(), asyncio.get_running_loop().create_future()

    async def reads() -> str:
        deadline.expect(60)
        try:
            await result
        except asyncio.CancelledError:
            return str(deadline.interrupted())
        return "result"

    task = await begun(reads())
    result.set_result(None)  # wakes the task in the next tick ...
    deadline.stop("drained")  # ... in which it is cancelled
    assert await task == "True"


async def test_a_swallowed_cancel_leaves_nothing_behind() -> None:
    """On Python 3.11 `asyncio.wait_for` swallows a cancel that meets a result; so may any adapter."""
    deadline = Deadline()

    async def swallows() -> str:
        deadline.expect(60)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            deadline.received()  # got what it waited for, all the same
        assert not deadline.fired, "a time-out that never came to anything was kept"
        return await waits(deadline)

    task = await begun(swallows())
    skip(61)
    await idle()
    assert task.cancelling() == 0, "the task goes on with a cancel that it has no reason for"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("end", ["timeout", "stop"])
async def test_who_swallows_a_cancel_gets_another(end: str) -> None:
    deadline, swallowed = Deadline(), 0

    async def stubborn() -> str:
        nonlocal swallowed
        deadline.expect(60)
        while swallowed < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        interrupted = deadline.interrupted()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return str(interrupted)

    task = await begun(stubborn())
    if end == "stop":
        deadline.stop("drained")
    else:
        skip(61)
    for _ in range(3):
        await idle()
        skip(AGAIN + 0.1)
    await idle()
    assert task.done(), "it swallowed a cancel, and nobody tried again"
    assert await task == "True"
    assert deadline.fired == (end == "timeout")


async def test_after_close_nothing_fires() -> None:
    deadline = Deadline()
    deadline.expect(60)
    deadline.close()
    skip(61)
    await idle()
    assert not deadline.fired


async def test_the_callers_own_timeout_works_around_it() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await waits(Deadline())
