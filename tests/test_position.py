"""What stands in `id:` lines comes back as it was, and nothing else is taken for a position."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import RequestError
from proxy.position import START, Position, read_position

POSITIONS = st.builds(
    Position,
    epoch=st.integers(1, 10**10 - 1),
    seq=st.integers(1, 10**15 - 1),
    nonce=st.text("0123456789abcdef", min_size=8, max_size=8),
    part=st.integers(0, 10**6 - 1),
)


@given(POSITIONS)
def test_a_position_comes_back_as_it_was(position: Position) -> None:
    assert read_position(str(position)) == position


def test_a_position_is_short() -> None:
    assert str(Position(1, 17, "9f3a01bc")) == "1-17-9f3a01bc"
    assert str(Position(1, 17, "9f3a01bc", part=2)) == "1-17.2-9f3a01bc"


@pytest.mark.parametrize("text", [None, "", "0"])
def test_who_has_seen_nothing_begins_at_the_start(text: str | None) -> None:
    assert read_position(text) == START


@pytest.mark.parametrize(
    "text",
    [
        *("1", "1-17", "1-17-9f3a01b", "1-17-9F3A01BC", "0-17-9f3a01bc", "1-0-9f3a01bc", "1-17.0-9f3a01bc"),
        *("01-17-9f3a01bc", "1-17-9f3a01bc\n", " 1-17-9f3a01bc", "1-\u0661-9f3a01bc", "-1-17-9f3a01bc", "x" * 10_000),
    ],
)
def test_anything_else_is_a_mistake(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_position(text)
    assert (caught.value.status, caught.value.code) == (400, "invalid_position")
    assert len(caught.value.message) < 300, "all of what came is said back"


def test_it_covers_what_was_had_in_full() -> None:
    seqs = (6, 7, 8)
    assert [Position(1, 7, "9f3a01bc").covers(seq) for seq in seqs] == [True, True, False]
    assert [Position(1, 7, "9f3a01bc", part=2).covers(seq) for seq in seqs] == [True, False, False]
    assert not START.covers(1)
