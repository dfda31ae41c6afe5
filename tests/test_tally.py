"""Figures add up exactly, wherever and in whatever order they were taken."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Kind
from proxy.tally import Histogram, Meter, Outcome, Tally, is_past, slots, window_of
from tests.journeys import Clock

times = st.floats(0.00001, 3000)
outcomes = st.lists(
    st.builds(
        Outcome,
        seconds=times,
        failure=st.none() | st.sampled_from(Kind),
        cancelled=st.booleans(),
        first_token=st.none() | st.floats(0.00001, 0.001),
        input_tokens=st.integers(0, 10**6),
        output_tokens=st.integers(0, 10**6),
    ),
    max_size=20,
)


def tally(counted: list[Outcome]) -> Tally:
    whole = Tally()
    for outcome in counted:
        whole.count(outcome)
    return whole


def plain(whole: Tally) -> Any:
    """What must be equal; sums of floats only nearly."""
    data = msgspec.to_builtins(whole)
    data["generating"] = pytest.approx(whole.generating, abs=1e-6)
    data["failures"] = {kind: count for kind, count in whole.failures.items() if count}
    for name, histogram in (("response", whole.response), ("first_token", whole.first_token)):
        counts = {bucket: count for bucket, count in histogram.buckets.items() if count}
        data[name] = (counts, pytest.approx(histogram.seconds, abs=1e-6))
    return data


@given(outcomes, outcomes)
def test_merging_is_counting_together_and_subtracting_undoes_it(one: list[Outcome], two: list[Outcome]) -> None:
    both = tally(one)
    both.merge(tally(two))
    assert plain(both) == plain(tally(one + two)), "a merge is not the count of everything"
    both.merge(tally(two), sign=-1)
    assert plain(both) == plain(tally(one)), "what was taken away again left something behind"


@given(outcomes)
def test_a_tally_survives_the_store(counted: list[Outcome]) -> None:
    whole = tally(counted)
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Tally) == whole


@given(outcomes)
def test_every_attempt_is_one_of_three(counted: list[Outcome]) -> None:
    whole = tally(counted)
    assert whole.requests == len(counted) == whole.successes + whole.cancelled + sum(whole.failures.values())


@given(st.lists(times, min_size=1, max_size=300))
def test_percentiles_are_within_five_percent(seconds: list[float]) -> None:
    histogram = Histogram()
    for each in seconds:
        histogram.add(each)
    figures = histogram.figures()
    ranked = sorted(seconds)
    for q in (50, 95, 99):
        exact = ranked[math.ceil(q * len(ranked) / 100) - 1] * 1000
        rounded = 0.006  # figures have two digits
        assert figures[f"p{q}"] == pytest.approx(exact, abs=0.049 * exact + rounded), f"p{q} of {ranked}"
    assert figures["average"] == pytest.approx(sum(seconds) / len(seconds) * 1000, abs=0.01)


def test_nothing_measured_is_not_zero() -> None:
    assert Histogram().figures() == {"average": None, "p50": None, "p95": None, "p99": None}


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_time_of_nothing_is_a_time(seconds: float) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    assert sum(histogram.buckets.values()) == 1


def test_two_tallies_share_nothing() -> None:
    one, two = Tally(), Tally()
    one.count(Outcome(1.0, failure=Kind.CUT, first_token=0.1))
    one.count(Outcome(1.0, first_token=0.1))
    assert two == Tally(), "counting one counted the other"


@pytest.mark.parametrize(
    ("counted", "rate"),
    [
        ([], 0.0),
        ([Outcome(1.0)], 0.0),
        ([Outcome(1.0), Outcome(1.0, failure=Kind.SERVER)], 0.5),
        ([Outcome(1.0), Outcome(1.0, failure=Kind.REJECTED)], 0.0),
        ([Outcome(1.0), Outcome(1.0, cancelled=True)], 0.0),
        ([Outcome(1.0), Outcome(1.0, failure=Kind.TIMEOUT), Outcome(1.0, failure=Kind.REJECTED)], 1 / 3),
    ],
)
def test_what_the_client_did_is_no_error_of_the_provider(counted: list[Outcome], rate: float) -> None:
    assert tally(counted).error_rate == pytest.approx(rate)


def test_figures_read_as_documented() -> None:
    whole = tally(
        [
            Outcome(2.0, first_token=0.5, input_tokens=10, output_tokens=30),
            Outcome(0.1, failure=Kind.RATE_LIMIT),
            Outcome(0.1, cancelled=True),
        ]
    )
    whole.failures["cut"] = 0
    figures = whole.figures()
    assert figures["response_ms"] != figures["first_token_ms"]
    del figures["response_ms"], figures["first_token_ms"]
    assert figures == {
        "requests": 3,
        "successes": 1,
        "cancelled": 1,
        "failures": {"rate_limit": 1},
        "error_rate": 0.3333,
        "input_tokens": 10,
        "output_tokens": 30,
        "tokens_per_second": 20.0,
    }


def test_windows_slide() -> None:
    clock = Clock(3_600_000.0)
    meter = Meter(clock)
    meter.record(Outcome(1.0))
    assert meter.tallies.keys() == {"total", "minute:360000", "hour:60000"} == meter.changed
    clock.now += 49
    assert meter.forget_the_past() == [], "a minute is not over yet"
    clock.now += 11
    assert meter.forget_the_past() == ["minute:360000"], "after a minute the minute is past, and nothing else"
    clock.now += 3540
    assert meter.forget_the_past() == ["hour:60000"]
    assert meter.tallies.keys() == meter.changed == {"total"}, "the total stays for good"


@given(st.floats(0, 2e9), st.floats(0, 10_000))
def test_a_window_holds_all_of_its_time_and_a_slot_more_at_most(then: float, later: float) -> None:
    _, minute, hour = slots(then)
    for slot, length, width in ((minute, 60, 10), (hour, 3600, 60)):
        if later < length - width:
            assert not is_past(slot, then + later), f"{slot} is forgotten after {later} s"
        if later >= length:
            assert is_past(slot, then + later), f"{slot} is kept after {later} s"


def test_the_total_is_never_past() -> None:
    assert not is_past("total", 2e9)
    assert [window_of(slot) for slot in slots(0)] == ["total", "minute", "hour"]


def test_the_last_error_is_kept_with_its_time() -> None:
    clock = Clock(100.0)
    meter = Meter(clock)
    meter.record(Outcome(1.0, failure=Kind.CUT), "the stream broke")
    clock.now = 200.0
    meter.record(Outcome(1.0))
    meter.record(Outcome(1.0, cancelled=True))
    assert meter.last_error is not None
    assert (meter.last_error.message, meter.last_error.kind, meter.last_error.at) == ("the stream broke", "cut", 100.0)
