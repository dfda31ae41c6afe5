"""What a provider says about when to come back: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after"""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.retry_after import retry_after

NOON = 1_000_000_000  # Sun, 09 Sep 2001 01:46:40 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2.0),
        ("0", 0.0),
        ("1.5", 1.5),
        (" 3 ", 3.0),
        ("Sun, 09 Sep 2001 01:46:50 GMT", 10.0),
        ("Sunday, 09-Sep-01 01:46:50 GMT", 10.0),
        ("Sun Sep  9 01:46:50 2001", 10.0),
        ("Sun, 09 Sep 2001 01:46:30 GMT", 0.0),
    ],
)
def test_reads_seconds_and_all_three_forms_of_a_date(value: str, seconds: float) -> None:
    assert retry_after({"retry-after": value}, now=NOON) == seconds, f"{value!r} was read otherwise"


@pytest.mark.parametrize("value", ["", "soon", "-5", "nan", "inf", "1e400", "2 s", "Sun, 99 Sep 2001 01:46:50 GMT"])
def test_knows_nothing_from_nonsense(value: str) -> None:
    assert retry_after({"retry-after": value}, now=NOON) is None, f"{value!r} was taken for a time"


def test_milliseconds_are_more_exact_than_the_header_beside_them() -> None:
    assert retry_after({"retry-after": "1", "retry-after-ms": "250"}) == 0.25
    assert retry_after({"retry-after": "1", "retry-after-ms": "soon"}) == 1.0


def test_no_header_says_nothing() -> None:
    assert retry_after({}) is None


def test_a_date_counts_from_the_clock() -> None:
    assert (retry_after({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}) or 0) > 3000


def test_a_date_without_a_zone_is_not_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC+5")
    time.tzset()
    try:
        for value in ("Sun Sep  9 01:46:50 2001", "Sun, 09 Sep 2001 01:46:50 -0000"):
            assert retry_after({"retry-after": value}, now=NOON) == 10.0, f"{value!r} was read as local time"
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text(max_size=40))
def test_no_value_raises(value: str) -> None:
    seconds = retry_after({"retry-after": value, "retry-after-ms": value}, now=NOON)
    assert seconds is None or seconds >= 0
