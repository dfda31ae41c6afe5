"""Where text may be cut. The bars show the cuts."""

import copy

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from proxy.modes.units import Characters, Lines, Sentences, Unit, Words, clusters
from tests.modes.streams import LETTERS

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FLAGS = "\U0001f1e9\U0001f1ea|\U0001f1eb\U0001f1f7"


def cut(unit: Unit, text: str) -> str:
    """The text with a bar where a unit ends."""
    shown = ""
    for cluster in every(text):
        shown += "|" * unit.ends_before(cluster) + cluster + "|" * unit.ends_after(cluster)
    return shown.rstrip("|")


@pytest.mark.parametrize(
    "shown",
    ["a|b| |c", "e\u0301|a", f"x|{FAMILY}|y", FLAGS, "a|\r\n|b", "\u0e01\u0e33|a", "\u1112\u1161\u11ab|a", "\n|\u0301"],
)
def test_a_character_is_what_a_reader_takes_for_one(shown: str) -> None:
    assert cut(Characters(), shown.replace("|", "")) == shown


@pytest.mark.parametrize(
    "shown",
    [
        "Hello, |world! |How  |are\n\n|you?",
        "  two |words ",
        "don't |split |3.14 |or |a-b",
        f"{FAMILY} |and |{FLAGS.replace('|', '')}",
        "\u4f60|\u597d\uff0c|\u4e16|\u754c\u3002",  # Chinese, with its comma and its full stop
        "\u201c\u4f60|\u597d\u201d",  # in quotes
        "GPT-4 |\u306f|\u8ce2|\u3044|GPT|\u3067|\u3059",  # Japanese, with a name in it
        "\ud55c\uad6d\uc5b4 |\ub2e8\uc5b4",  # Korean has blanks
        "\u0e2a|\u0e27\u0e31|\u0e2a|\u0e14\u0e35",  # Thai has none
        "caf\u00e9 |nai\u0308ve",
        "...",
    ],
)
def test_a_word_is_what_stands_between_blanks_or_a_character_where_there_are_none(shown: str) -> None:
    assert cut(Words(), shown.replace("|", "")) == shown


@pytest.mark.parametrize(
    "shown",
    [
        "Hello there. |How are you? |Fine!",
        "Really?! |Yes... |No",
        'He said "Stop." |Then he left. |(He did.) |So',
        "It is 3.14 or e.g. this, i.e. that. |And v1.2.",
        "1. First of all. |2. And then.",
        "A heading\n|A line. |Another\n\n|- an item\n|- and one more",
        "Wait\u2026 what? |Oh\u2026 |Well",
        "\u4f60\u597d\u3002|\u771f\u7684\uff01\uff1f|\u300c\u597d\u3002\u300d|\u6211\u4eec",  # Chinese: no blanks
        "\u3059\u3002 |\u306f\u3044\u3002",  # Japanese, with one
        "\u597d\u3002|\uff08\u6ce8\uff09",  # an opening bracket begins the next
        "\u0939\u093e\u0901\u0964 |\u0928\u0939\u0940\u0902",  # Hindi
        "a != b and x?.y",
        "  . leading",
        "no end",
    ],
)
def test_a_sentence_ends_with_its_stop_and_the_blanks_that_follow(shown: str) -> None:
    assert cut(Sentences(), shown.replace("|", "")) == shown


@pytest.mark.parametrize("shown", ["one\n|two\r\n|\n|three\r|four\u2028|five", "no end", "\n|\n|\n"])
def test_a_line_ends_with_its_line_break(shown: str) -> None:
    assert cut(Lines(), shown.replace("|", "")).rstrip("|") == shown.rstrip("|")


def certain(text: str) -> list[str]:
    return clusters(text, 0)[0]


def every(text: str, start: int = 0) -> list[str]:
    """All clusters, whether or not the last one may grow."""
    whole, growing = clusters(text, start)
    return [*whole, *([growing] if growing else [])]


def test_the_last_character_may_still_grow() -> None:
    assert certain("ab") == ["a"]
    assert certain("ae\u0301") == ["a"]
    assert certain("\U0001f1e9\U0001f1ea\U0001f1eb") == ["\U0001f1e9\U0001f1ea"]
    assert certain("a\r") == ["a"]
    assert certain("") == []


def test_a_line_break_does_not_grow() -> None:
    assert certain("a\n") == ["a", "\n"]
    assert certain("\u4f60\r\n") == ["\u4f60", "\r\n"]


def test_reading_may_go_on_where_it_left_off() -> None:
    assert every("abc\U0001f468", 1) == ["b", "c", "\U0001f468"]


@given(st.text(LETTERS), st.data())
def test_what_is_certain_stays_so_whatever_comes(text: str, data: st.DataObject) -> None:
    all_of_it = every(text)
    assert all_of_it == regex.findall(r"\X", text), "the quick way and the thorough one differ"
    got, seen = list[str](), 0
    for end in [*sorted(data.draw(st.lists(st.integers(0, len(text))))), len(text)]:
        whole, _ = clusters(text[:end], seen)
        got += whole
        seen += len("".join(whole))
    assert got == all_of_it[: len(got)], "a character was cut in two"
    assert len(all_of_it) - len(got) <= 1


@pytest.mark.parametrize("unit", [Characters, Words, Sentences, Lines])
@given(st.text(LETTERS), st.text(LETTERS, min_size=1))
def test_what_is_said_before_a_character_holds_for_what_it_grows_to(unit: type[Unit], before: str, rest: str) -> None:
    one, other = unit(), unit()
    for machine in (one, other):
        for cluster in every(before):
            machine.ends_before(cluster)
    grown = every(rest)[0]
    for length in range(1, len(grown) + 1):
        if not grown[:length].isspace():
            assert copy.deepcopy(one).ends_before(grown[:length]) == copy.deepcopy(other).ends_before(grown)
