"""Commands that go many at once: each gets its own reply, whatever became of those before; and nothing goes twice."""

import asyncio
import contextlib

import pytest
from redis.exceptions import RedisError, ResponseError

from proxy.state.line import Line, command
from tests.journeys import idle, skip
from tests.process import until
from tests.redis_server import RedisServer
from tests.state.stores import Stores, stores_at

pytestmark = pytest.mark.anyio


@pytest.fixture
def line(stores: Stores) -> Line:
    return stores().line(5.0)


def echo(*words: str) -> list[bytes]:
    return [command("ECHO", word) for word in words]


def test_a_command_is_what_stands_on_the_wire() -> None:
    assert command("SET", "é", b"\xff", 7) == b"*4\r\n$3\r\nSET\r\n$2\r\n\xc3\xa9\r\n$1\r\n\xff\r\n$1\r\n7\r\n"


async def test_each_command_has_its_reply_and_an_error_is_one(line: Line) -> None:
    one, error, nothing, two = await line.ask([*echo("one"), command("ECHO"), command("GET", "none"), *echo("two")])
    assert (one, nothing, two) == ("one", None, "two")
    assert isinstance(error, ResponseError)
    assert await line.ask(echo("three")) == ["three"]


async def test_exchanges_come_one_after_the_other(line: Line) -> None:
    assert await line.ask(echo("x")) == ["x"]
    words = [[f"{exchange}-{number}" for number in range(3)] for exchange in range(20)]
    assert await asyncio.gather(*(line.ask(echo(*each)) for each in words)) == words


async def test_who_is_cancelled_leaves_no_reply_to_the_next(line: Line, stores: Stores) -> None:
    waiting = asyncio.create_task(line.ask([command("BLPOP", "nothing", 1), *echo("late")]))
    await idle()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert await line.ask(echo("own")) == ["own"]


async def test_a_redis_that_hangs_is_waited_for_so_long_and_its_late_reply_is_nobodys(
    redis_server: RedisServer,
) -> None:
    async with stores_at(redis_server.url) as stores:
        line, loop = stores().line(0.2), asyncio.get_running_loop()
        assert await line.ask(echo("x")) == ["x"]
        redis_server.pause()
        try:
            began = loop.time()
            with pytest.raises(TimeoutError):
                await line.ask([command("INCR", "count")])
            assert 0.2 <= loop.time() - began < 0.5
        finally:
            redis_server.resume()
        assert await line.ask(echo("y")) == ["y"]
        await until(lambda: "1" in redis_server.command("GET", "count"), "it was carried out, once")


async def test_a_process_that_was_busy_finds_the_answer_all_the_same(redis_server: RedisServer) -> None:
    """Its clock runs on meanwhile, and is looked at before its sockets are."""
    async with stores_at(redis_server.url) as stores:
        line = stores().line(1.0)
        await line.ask(echo("x"))
        for _ in range(3):
            asking = asyncio.create_task(line.ask(echo("y")))
            await asyncio.sleep(0)
            assert redis_server.command("PING") == "+PONG\r\n", "by now it has answered"
            skip(60)
            assert await asking == ["y"]


async def test_a_connection_that_was_closed_while_nobody_spoke_is_made_anew(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        line = stores().line(1.0)
        assert await line.ask(echo("x")) == ["x"]
        redis_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await idle()
        assert await line.ask(echo("y")) == ["y"]


async def test_nothing_is_sent_twice(redis_server: RedisServer) -> None:
    """Whether it was done, only whoever asked can tell."""
    async with stores_at(redis_server.url) as stores:
        line = stores().line(1.0)
        with pytest.raises((RedisError, OSError)):
            await line.ask([command("INCR", "count"), command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")] * 2)
        assert await line.ask([command("GET", "count")]) == ["1"]


async def test_a_redis_that_is_not_there_is_told_at_once(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        line = stores().line(5.0)
        for _ in range(2):
            redis_server.kill()
            with pytest.raises((RedisError, OSError)):
                await line.ask(echo("x"))
            redis_server.start()
            assert await line.ask(echo("y")) == ["y"]


async def test_it_closes_with_its_store(redis_server: RedisServer) -> None:
    async with stores_at(redis_server.url) as stores:
        await stores().line(1.0).ask(echo("x"))
        assert "cmd=echo" in redis_server.command("CLIENT", "LIST")
    assert "cmd=echo" not in redis_server.command("CLIENT", "LIST"), "its connection is left open"


async def test_what_is_much_may_take_longer(redis_server: RedisServer) -> None:
    """A request that is kept may have megabytes, and whoever waits behind it is not to be refused."""
    async with stores_at(redis_server.url) as stores:
        line, loop = stores().line(0.2), asyncio.get_running_loop()
        assert await line.ask(echo("x")) == ["x"]
        redis_server.pause()
        loop.call_later(0.4, redis_server.resume)
        assert await line.ask([command("SET", "x", b"y" * 10_000_000)]) == ["OK"]
