"""What is true of every mode, ours and the example's, whatever comes."""

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.typewriter import Typewriter
from proxy.errors import RequestError
from proxy.events import ENDS, Event, SourceEnd, TextDelta
from proxy.generator import GeneratorMode, StreamingGenerator
from proxy.modes.buffered import Buffered
from proxy.modes.chunked import Chunked
from proxy.modes.interleaved import Interleaved
from proxy.modes.priority import Priority, Ranks
from proxy.modes.standard import Standard
from proxy.registry import Registry
from proxy.testing import check_mode, shape
from proxy.testing.merge import Script
from tests.modes.streams import streams

MODES: list[StreamingGenerator] = [
    Standard(),
    Buffered(),
    Buffered(buffer_size=1),
    Buffered(buffer_size=9, flush_interval=0.05),
    Chunked(),
    Chunked(unit="characters"),
    Chunked(unit="characters", size=4),
    Chunked(unit="words", size=2),
    Chunked(unit="sentences"),
    Chunked(unit="lines"),
    Interleaved(),
    Interleaved(turn=3),
    Priority(),
    Priority(ranks=Ranks(thoughts=9, control=-1), sources={"b": 5}),
    Typewriter(),
    Typewriter(cps=1000),
]


@pytest.mark.anyio
@pytest.mark.parametrize("mode", MODES, ids=repr)
async def test_it_keeps_the_rules(mode: StreamingGenerator) -> None:
    await check_mode(mode)


def texts(events: Iterable[object], source: str = "") -> dict[tuple[str, int], str]:
    """What was said, by source and choice."""
    said: dict[tuple[str, int], str] = {}
    for event in events:
        if isinstance(event, TextDelta) and event.content:
            place = (source or event.source, event.index)
            said[place] = said.get(place, "") + event.content
    return said


@pytest.mark.parametrize("mode", MODES, ids=repr)
@settings(max_examples=50)
@given(scripts=streams(), pause=st.sampled_from([0.0, 0.01, 0.1]))
def test_nothing_is_lost_and_everything_ends(
    mode: StreamingGenerator, scripts: dict[str, Script], pause: float
) -> None:
    got = asyncio.run(shape(mode, scripts, pause))  # and it checks what came where
    given_texts: dict[tuple[str, int], str] = {}
    for name, script in scripts.items():
        given_texts |= texts(script, name)
        ends = [event for event in got if isinstance(event, SourceEnd) and event.source == name]
        assert len(ends) == (len(scripts) > 1)
        rest = [id(step) for step in script if isinstance(step, Event) and type(step) not in {TextDelta, *ENDS}]
        passed = [
            id(event) for event in got if event.source == name and type(event) not in {TextDelta, SourceEnd, *ENDS}
        ]
        assert passed == rest or (mode.reorders and sorted(passed) == sorted(rest))
    assert texts(got) == given_texts
    assert [type(event) in ENDS for event in got] == [False] * (len(got) - 1) + [True]


@pytest.mark.parametrize(
    ("name", "config", "param"),
    [
        ("buffered", {"buffer_size": 0}, "weir.config.buffer_size"),
        ("buffered", {"buffer_size": 65537}, "weir.config.buffer_size"),
        ("buffered", {"flush_interval": 0}, "weir.config.flush_interval"),
        ("buffered", {"flush_interval": 60.1}, "weir.config.flush_interval"),
        ("buffered", {"flush_interval": float("nan")}, "weir.config.flush_interval"),
        ("chunked", {"unit": "pages"}, "weir.config.unit"),
        ("chunked", {"size": 0}, "weir.config.size"),
        ("chunked", {"size": 65537}, "weir.config.size"),
        ("interleaved", {"turn": 0}, "weir.config.turn"),
        ("priority", {"ranks": {"text": 1}}, "weir.config.ranks.text"),
        ("priority", {"ranks": {"thoughts": "high"}}, "weir.config.ranks.thoughts"),
        ("priority", {"sources": {"a": float("inf")}}, "weir.config.sources.a"),
        ("priority", {"sources": 5}, "weir.config.sources"),
        ("standard", {"speed": 1}, "weir.config.speed"),
    ],
)
def test_a_wrong_option_is_named(name: str, config: dict[str, object], param: str) -> None:
    with pytest.raises(RequestError) as raised:
        Registry.with_plugins().mode(name, config)
    assert raised.value.param == param
    assert raised.value.message.startswith(f"{param}: ")


def test_all_modes_are_tried_here() -> None:
    registry = Registry.with_plugins()
    assert {type(registry.mode(name, {})) for name in GeneratorMode} <= {type(mode) for mode in MODES}
