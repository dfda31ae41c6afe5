"""What every format has to know of a stream is kept with it."""

import time

import msgspec

from proxy.heading import Heading


def test_it_comes_back_from_a_log_as_it_was() -> None:
    heading = Heading("r1", "m", ["a", "b"], include_usage=True, created=7, message_id="msg")
    assert msgspec.json.decode(msgspec.json.encode(heading), type=Heading) == heading


def test_when_it_was_made_is_kept_and_not_when_it_is_read() -> None:
    """Each chunk says so: a reader who comes later sees what the first one saw."""
    heading = Heading("r1", "m", ["a"])
    assert abs(heading.created - time.time()) < 60
    assert f'"created":{heading.created}'.encode() in msgspec.json.encode(heading)


def test_several_are_more_than_one() -> None:
    assert not Heading("r1", "m", ["a"]).several
    assert Heading("r1", "m", ["a", "b"]).several
