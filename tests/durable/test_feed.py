"""What readers of a stream are fed from: the newest of what Redis has acknowledged."""

import asyncio
from collections.abc import Callable

import pytest

from proxy.durable.feed import MOST_ENTRIES, MOST_SIZE, Feed
from proxy.errors import WeirError
from proxy.events import Finish
from proxy.record import NOWHERE, Place
from tests.durable.logs import entry, told
from tests.journeys import idle

pytestmark = pytest.mark.anyio


def feed_of(count: int) -> Feed:
    feed = Feed(Place(1, 0))
    for seq in range(1, count + 1):
        feed.push(entry(seq, f"{seq} "))
    return feed


def test_a_reader_gets_what_comes_after_its_place() -> None:
    feed = feed_of(3)
    assert told(feed.since(Place(1, 0))) == ["1 ", "2 ", "3 "]
    assert told(feed.since(Place(1, 2))) == ["3 "]
    assert feed.since(Place(1, 3)) == []
    assert feed.tip == Place(1, 3)


def test_a_reader_who_is_ahead_waits() -> None:
    """It has read the log itself, where the writer does not yet know what has arrived."""
    feed = feed_of(1)
    assert feed.since(Place(1, 3)) == []
    for seq in (2, 3, 4):
        feed.push(entry(seq, f"{seq} "))
    assert told(feed.since(Place(1, 3))) == ["4 "]


def test_what_came_before_it_is_in_the_log_alone() -> None:
    assert Feed(Place(2, 0)).since(Place(1, 7)) is None
    assert Feed(NOWHERE).since(NOWHERE) == []


def test_no_more_is_kept_than_so_many_entries() -> None:
    feed = feed_of(MOST_ENTRIES + 10)
    assert feed.since(Place(1, 9)) is None, "it says that it has all of it"
    kept = feed.since(Place(1, 10))
    assert kept is not None
    assert len(kept) == MOST_ENTRIES


def test_no_more_is_kept_than_so_many_bytes() -> None:
    feed = Feed(NOWHERE)
    for seq in range(1, 5):
        feed.push(entry(seq, "x" * (MOST_SIZE // 2 - len('""'))))
    assert feed.since(Place(1, 1)) is None
    assert len(feed.since(Place(1, 2)) or ()) == 2
    feed.push(entry(5, "x" * MOST_SIZE * 3))
    assert len(feed.since(Place(1, 4)) or ()) == 1, "not even the newest is kept"
    feed.push(entry(6, "x"))
    assert len(feed.since(Place(1, 5)) or ()) == 1, "what was forgotten still counts"


async def test_all_who_wait_are_told_of_news() -> None:
    feed = feed_of(1)
    news: list[Callable[[], None]] = [
        lambda: feed.push(entry(2, "x")),
        feed.retire,
        lambda: feed.fail(WeirError("x")),
        feed.tell,
    ]
    for happens in news:
        waiting = [asyncio.create_task(feed.news()) for _ in range(3)]
        await idle()
        assert not any(each.done() for each in waiting), "there are no news"
        happens()
        await asyncio.wait_for(asyncio.gather(*waiting), 1)


async def test_who_no_longer_waits_does_no_harm() -> None:
    feed = feed_of(1)
    one, other = asyncio.create_task(feed.news()), asyncio.create_task(feed.news())
    await idle()
    one.cancel()
    await idle()
    feed.push(entry(2, "x"))
    await asyncio.wait_for(other, 1)


def test_why_it_failed_first_is_why() -> None:
    feed, first = feed_of(1), WeirError("first")
    feed.fail(first)
    feed.fail(WeirError("second"))
    assert feed.failed is first
    assert not feed.ended


def test_an_end_is_known() -> None:
    feed = feed_of(1)
    assert not feed.ended
    feed.push(entry(3, "x", Finish()))
    assert feed.ended
