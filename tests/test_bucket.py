"""How much may come, at once and in the long run."""

from proxy.bucket import Bucket
from tests.journeys import Clock


def test_a_burst_passes_and_no_more() -> None:
    bucket = Bucket(rate=10, burst=3, clock=Clock())
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_it_fills_again_with_time_up_to_a_burst() -> None:
    clock = Clock()
    bucket = Bucket(rate=10, burst=3, clock=clock)
    assert bucket.take(3)
    clock.now += 0.11
    assert [bucket.take(), bucket.take()] == [True, False], "a tenth of a second is worth one"
    clock.now += 3600
    assert [bucket.take(3), bucket.take()] == [True, False], "an hour is worth a burst"


def test_the_rate_can_be_kept_for_ever() -> None:
    clock = Clock()
    bucket = Bucket(rate=50, burst=2, clock=clock)
    for _ in range(1000):
        clock.now += 0.0201
        assert bucket.take()


def test_many_at_once_count_as_many() -> None:
    bucket = Bucket(rate=10, burst=3, clock=Clock())
    assert not bucket.take(4)
    assert bucket.take(3), "what is refused costs nothing"
