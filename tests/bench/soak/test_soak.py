"""What a soak finds fault with."""

from dataclasses import replace
from typing import Any

import pytest

from bench.soak.__main__ import IN_STORE, problems
from bench.soak.inside import Look
from bench.soak.served import Reading

LOOK = Look(
    tasks=9, threads=8, store=0, keys={"providers": 1, "stream": 10}, objects={"builtins.dict": 1000, IN_STORE: 11}
)
BEFORE = Reading(rss=200_000_000, fds=19, inside=LOOK)


def after(**inside: Any) -> Reading:
    return replace(BEFORE, inside=replace(LOOK, **inside))


def test_all_is_as_it_was() -> None:
    assert problems(BEFORE, BEFORE, streams=1000, durable=10) == []


def test_what_is_known_to_stay_is_no_fault() -> None:
    """That there was a durable stream is remembered for a day; each of these is an object, too."""
    kept = after(keys={"providers": 1, "stream": 900, "probe": 1}, objects={"builtins.dict": 1000, IN_STORE: 902})
    assert problems(BEFORE, kept, streams=1000, durable=900) == []


@pytest.mark.parametrize(
    ("reading", "told"),
    [
        (replace(BEFORE, rss=221_000_000), "memory: 200.0 MB, and then 221.0 MB"),
        (replace(BEFORE, fds=20), "file descriptors: 19, and then 20"),
        (after(tasks=10), "tasks: 9, and then 10"),
        (after(keys={"providers": 1, "stream": 10, "log": 1}), "keys in the store: 0 of log, and then 1"),
        (after(keys={"stream": 10}), "keys in the store: 1 of providers, and then 0"),
        (after(keys={"providers": 1, "stream": 9}), "keys in the store: 9 of 10 durable streams are remembered"),
        (after(objects={"builtins.dict": 2011, IN_STORE: 11}), "1011 more objects of builtins.dict after 1000 streams"),
        (after(objects={"proxy.journey.Journey": 103}), "103 more objects of proxy.journey.Journey after 1000 streams"),
    ],
)
def test_a_fault(reading: Reading, told: str) -> None:
    assert problems(BEFORE, reading, streams=1000, durable=10) == [told]
