"""The example of a mode: it keeps the rules, and it types."""

from pathlib import Path

import pytest

from plugins.typewriter import Typewriter
from proxy.errors import RequestError
from proxy.events import Abort, Error, Event, Finish, ReasoningDelta, TextDelta
from proxy.registry import Registry
from proxy.testing import check_mode, merged
from proxy.testing.merge import Script

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("cps", [1, 40, 333, 10_000])
async def test_it_keeps_the_rules_of_a_mode(cps: float) -> None:
    await check_mode(Typewriter(cps=cps))


async def test_it_comes_in_by_its_name() -> None:
    registry = Registry.with_plugins(["plugins.typewriter"])
    assert registry.mode("typewriter", {"cps": 60}) == Typewriter(cps=60)
    with pytest.raises(RequestError, match=r"weir\.config\.cps"):
        registry.mode("typewriter", {"cps": 0})


def text(content: str) -> TextDelta:
    return TextDelta(content=content)


async def typed(mode: Typewriter, *scripts: Script) -> list[tuple[float, str]]:
    """When what came, in seconds."""
    async with merged(*scripts) as merge:
        got = []
        async for event in mode.generate(merge):
            what = getattr(event, "content", type(event).__name__)
            got.append((round(merge.time(), 3), what))
        return got


async def test_text_comes_at_one_pace_however_fast_it_was_said() -> None:
    got = await typed(Typewriter(cps=40), [text("Hello, wo"), text("rld!"), Finish()])
    pieces = ["He", "ll", "o,", " w", "or", "ld", "!"]
    assert got == [*((round(number * 0.05, 3), piece) for number, piece in enumerate(pieces)), (0.3, "Finish")]


async def test_a_thousand_characters_take_their_time() -> None:
    for cps in (40, 100, 1000):
        *_, (end, _) = await typed(Typewriter(cps=cps), [text("word ") for _ in range(200)] + [Finish()])
        assert end == pytest.approx(1000 / cps, rel=0.06), f"at {cps} characters a second"


async def test_it_waits_for_a_slow_model_and_does_not_catch_up() -> None:
    got = await typed(Typewriter(cps=40), [text("abc"), 10.0, text("defghi"), 10.0, Finish()])
    assert got == [(0.0, "ab"), (10.0, "cd"), (10.05, "ef"), (10.1, "gh"), (20.0, "i"), (20.0, "Finish")]


async def test_a_character_is_typed_whole() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    got = await typed(Typewriter(cps=20), [text("e"), text("\u0301" + family[:1]), text(family[1:] + "!"), Finish()])
    assert [what for _, what in got] == ["e\u0301", family, "!", "Finish"]
    assert [time for time, _ in got] == [0.0, 0.05, 0.1, 0.1], "a character of many code points counts once"


async def test_what_is_not_text_is_not_typed() -> None:
    got = await typed(Typewriter(cps=40), [text("abcd"), ReasoningDelta(content="hm " * 100), text("ef"), Finish()])
    assert got == [(0.0, "ab"), (0.05, "cd"), (0.05, "hm " * 100), (0.1, "ef"), (0.1, "Finish")]


@pytest.mark.parametrize("end", [Error(message="cut"), Abort(reason="the reader said stop")])
async def test_a_stream_that_broke_is_not_typed_to_its_end(end: Event) -> None:
    got = await typed(Typewriter(cps=10), [text("word " * 20), 1.0, end])
    assert got[-1] == (1.0, type(end).__name__), "the reader was kept waiting for an end that had come"
    assert "".join(what for _, what in got[:-1]) == "word " * 20


async def test_the_model_is_held_back() -> None:
    said = 0

    def endless() -> Script:
        nonlocal said
        while True:
            said += 100
            yield text("x" * 100)

    async with merged(endless()) as merge:
        async for _ in Typewriter(cps=1000).generate(merge):
            if merge.time() > 10:
                break
    assert 10_000 <= said < 10_000 + 70_000, "it reads on and on, and keeps what it reads"


def test_it_is_an_example_that_fits_a_screen() -> None:
    lines = Path(__file__).parents[2].joinpath("plugins/typewriter.py").read_text().splitlines()
    assert len(lines) < 70
    ours = [line.split()[1] for line in lines if line.startswith("from ") and "pydantic" not in line]
    assert {name.split(".")[0] for name in ours} <= {"collections", "contextlib", "proxy"}
