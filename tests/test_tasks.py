"""Ending background work for certain."""

import asyncio

import pytest

from proxy.tasks import end

pytestmark = pytest.mark.anyio


async def test_a_task_is_over_when_end_returns() -> None:
    task: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)
    await end(task)
    assert task.cancelled()


async def test_a_task_that_swallows_a_cancel_is_asked_again() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end(task)
    assert task.cancelled(), "one swallowed cancel kept the task alive"


async def test_what_has_ended_or_failed_is_left_alone() -> None:
    async def fail() -> None:
        raise ValueError

    done, failed = asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(fail())
    await asyncio.wait([done, failed])
    await end(done, failed)
    assert isinstance(failed.exception(), ValueError)
