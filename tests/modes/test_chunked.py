"""Text is cut anew, into pieces of one size."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.events import Event, Finish, ReasoningDelta, TextDelta
from proxy.modes.chunked import MOST_HELD, UNITS, Chunked
from proxy.modes.units import clusters
from proxy.testing import merged, play
from proxy.testing.mode_scripts import token
from tests.modes.streams import LETTERS

pytestmark = pytest.mark.anyio


async def pieces(mode: Chunked, *contents: str) -> list[str]:
    """The pieces of text that come of these."""
    async with merged([*(TextDelta(content=content) for content in contents), Finish()]) as merge:
        got = await play(mode.generate(merge))
    return [event.content for event in got if isinstance(event, TextDelta)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["Hello, ", "dear ", "world. ", "How ", "are ", "you?\n", "Fine."]),
        ({"size": 3}, ["Hello, dear world. ", "How are you?\n", "Fine."]),
        ({"unit": "characters", "size": 12}, ["Hello, dear ", "world. How a", "re you?\nFine", "."]),
        ({"unit": "sentences"}, ["Hello, dear world. ", "How are you?\n", "Fine."]),
        ({"unit": "sentences", "size": 2}, ["Hello, dear world. How are you?\n", "Fine."]),
        ({"unit": "lines"}, ["Hello, dear world. How are you?\n", "Fine."]),
    ],
)
async def test_each_piece_has_so_many_units(options: dict[str, object], expected: list[str]) -> None:
    whole = "Hello, dear world. How are you?\nFine."
    assert await pieces(Chunked.model_validate(options), whole) == expected
    assert await pieces(Chunked.model_validate(options), *whole) == expected, "it depends on how the text came"


async def test_a_character_is_not_cut() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert await pieces(Chunked(unit="characters"), *f"e\u0301{family}a\r\n") == ["e\u0301", family, "a", "\r\n"]
    assert await pieces(Chunked(unit="characters", size=2), "e", f"\u0301{family}a") == [f"e\u0301{family}", "a"]


async def shown(mode: Chunked, *script: Event | float) -> list[tuple[float, str]]:
    """When which piece came."""
    async with merged(script) as merge:
        events = mode.generate(merge)
        return [(round(merge.time(), 3), event.content) async for event in events if isinstance(event, TextDelta)]


def text(content: str, index: int = 0, source: str = "") -> TextDelta:
    return TextDelta(content=content, index=index)


async def test_a_piece_leaves_as_soon_as_it_is_certain() -> None:
    script: list[Event | float] = [text("one t"), 0.5, text("wo "), 0.5, text("three"), 0.5, Finish()]
    assert await shown(Chunked(), *script) == [(0.0, "one "), (1.0, "two "), (1.5, "three")]
    script = [text("one\ntwo"), 0.5, text("\n"), 0.5, Finish()]
    assert await shown(Chunked(unit="lines"), *script) == [(0.0, "one\n"), (0.5, "two\n")], "a line waits for the next"


async def test_what_is_not_text_comes_after_what_is_held() -> None:
    script: list[Event] = [text("one two"), ReasoningDelta(content="hm"), text("three fo"), text("ur"), Finish()]
    async with merged(script) as merge:
        got = [getattr(event, "content", "end") for event in await play(Chunked(size=4).generate(merge))]
    assert got == ["one two", "hm", "three four", "end"], "counting begins anew after something else than text"


async def test_what_is_let_go_before_its_time_has_no_more_than_one_size() -> None:
    """When something else comes, the last character and the last word are complete."""
    assert await pieces(Chunked(unit="characters"), "ab") == ["a", "b"]
    assert await pieces(Chunked(), "one t") == ["one ", "t"]


async def test_choices_and_sources_are_cut_each_for_itself() -> None:
    async with merged(
        [text("one t"), text("uno d", 1), text("wo"), text("ue", 1)], [text("eins z"), text("wei")]
    ) as merge:
        events = await play(Chunked().generate(merge))
    said = [(it.source, it.index, it.content) for it in events if isinstance(it, TextDelta)]
    for place, expected in {("a", 0): ["one ", "two"], ("a", 1): ["uno ", "due"], ("b", 0): ["eins ", "zwei"]}.items():
        assert [content for *where, content in said if (*where,) == place] == expected


async def test_log_probabilities_leave_with_the_first_piece_of_their_text() -> None:
    async with merged([*token("one two thr"), *token("ee"), Finish()]) as merge:
        got = [event for event in await play(Chunked().generate(merge)) if isinstance(event, TextDelta)]
    tokens = [[it["token"] for it in piece.choice["logprobs"]["content"]] if piece.choice else [] for piece in got]
    assert [piece.content for piece in got] == ["one ", "two ", "three"]
    assert tokens == [["one two thr"], [], ["ee"]]


@pytest.mark.parametrize("unit", ["words", "sentences", "lines"])
@pytest.mark.parametrize("cluster", ["x", "e\u0301"])
async def test_a_unit_without_end_is_cut_between_characters(unit: str, cluster: str) -> None:
    got = await pieces(Chunked.model_validate({"unit": unit}), *[cluster * 500] * 400)
    assert "".join(got) == cluster * 200_000
    assert {len(piece) for piece in got[:-1]} == {MOST_HELD}
    assert all(piece.startswith(cluster) for piece in got), "a character was cut in two"


async def test_a_piece_of_many_units_is_not_too_long_either() -> None:
    assert max(map(len, await pieces(Chunked(unit="lines", size=65536), "one line\n" * 30_000))) == MOST_HELD


@pytest.mark.parametrize("cluster", ["x", "e\u0301"])
async def test_counting_begins_anew_where_a_piece_was_cut_short(cluster: str) -> None:
    long = cluster * (MOST_HELD // len(cluster))
    assert await pieces(Chunked(size=2), f"a {long} b c d") == [f"a {long}"[:MOST_HELD], f"{long[-2:]} b ", "c d"]


async def test_a_character_without_end_is_cut_too() -> None:
    got = await pieces(Chunked(), "a", *["\u0301" * 1000] * 150)
    assert "".join(got) == "a" + "\u0301" * 150_000
    assert max(map(len, got)) <= MOST_HELD + 1000


async def test_an_answer_in_one_piece_takes_no_longer_than_in_many() -> None:
    """A provider that does not stream says it all at once: a million characters, cut one by one."""
    began = time.process_time()
    got = await pieces(Chunked(unit="characters"), "word " * 100_000)
    assert len(got) == 500_000
    assert time.process_time() - began < 20, "the time grows with the square of the length"


def counted(unit: str, piece: str) -> int:
    """The units in a piece, the last one complete or not."""
    machine, units = UNITS[unit](), 1
    whole, growing = clusters(piece, 0)
    for cluster in whole if growing else whole[:-1]:
        units += machine.ends_before(cluster) + machine.ends_after(cluster)
    return units


@given(st.sampled_from(sorted(UNITS)), st.integers(1, 3), st.lists(st.text(LETTERS, max_size=8), max_size=8))
async def test_however_text_comes_it_leaves_in_the_same_pieces(unit: str, size: int, contents: list[str]) -> None:
    mode = Chunked.model_validate({"unit": unit, "size": size})
    got = await pieces(mode, *contents)
    assert "".join(got) == "".join(contents)
    assert got == await pieces(mode, "".join(contents))
    assert all(counted(unit, piece) <= size for piece in got)
