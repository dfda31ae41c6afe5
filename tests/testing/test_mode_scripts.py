"""The scripts hold what they promise: a check is worth what it tries."""

import json
from itertools import pairwise

from proxy.chunk import beside
from proxy.events import Event, Quiet, SourceEnd, TextDelta, Vendor
from proxy.testing.mode_scripts import ODD_PIECES, mode_scripts, of_a_chunk, token


def test_each_time_they_are_new() -> None:
    one, two = ([*mode_scripts()["pieces of vendors' chunks"]["a"]] for _ in range(2))
    assert one == two
    assert not {id(step) for step in one} & {id(step) for step in two}


def test_every_kind_of_event_that_a_model_may_say_is_there() -> None:
    steps = [step for scripts in mode_scripts().values() for script in scripts.values() for step in script]
    ours = {SourceEnd, Quiet}
    missing = {*Event.__subclasses__()} - {type(step) for step in steps} - ours
    assert not missing


def test_pieces_are_cut_where_it_hurts() -> None:
    edges = [(before[-1:], after[:1]) for before, after in pairwise(ODD_PIECES)]
    assert ("e", "\u0301") in edges, "no accent is cut off its letter"
    assert ("\r", "\n") in edges
    assert any(after == "\u200d" for _, after in edges)


def test_a_chunk_is_one_of_openais() -> None:
    text, vendor = of_a_chunk(TextDelta(content="a"), Vendor(), index=2, delta={"x": 1}, logprobs={"content": []})
    assert text.raw is vendor.raw
    assert (text.parts, text.index) == (2, 2)
    assert json.loads(text.raw or b"")["choices"][0]["delta"] == {"content": "a", "x": 1}
    assert beside(text.raw or b"", 2) == {"logprobs": {"content": []}, "delta": {"x": 1}}
    (one,) = token("b")
    assert beside(one.raw or b"", 0) == {"logprobs": {"content": [{"token": "b", "logprob": -0.5}]}}
