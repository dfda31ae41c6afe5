"""What a request leaves behind: headers for its client, one line in the log."""

import logging

import pytest

from proxy.errors import Kind, ProviderError
from proxy.events import Usage
from proxy.journey import STEERED, Journey
from tests.journeys import Clock

pytestmark = pytest.mark.anyio


async def journey(model: str = "m") -> tuple[Journey, Clock]:
    clock = Clock(0.0)
    return Journey("r1", model, clock=clock), clock


async def test_headers_say_who_served_and_after_how_many_attempts() -> None:
    it, _ = await journey()
    assert it.headers() == {"x-request-id": "r1", "x-weir-provider": "none", "x-weir-attempts": "0"}
    it.asks("a")
    it.asks("b")
    assert it.headers() == {"x-request-id": "r1", "x-weir-provider": "b", "x-weir-attempts": "2"}


async def test_one_line_tells_it_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "proxy")
    it, clock = await journey()
    it.asks("a")
    it.failures["a"] = ProviderError(Kind.CUT, "it said sk-very-secret-1")
    it.asks("b")
    clock.now = 0.25
    it.commits()
    clock.now = 1.5
    it.usage, it.end = Usage(input_tokens=5, output_tokens=2), "finish"
    it.close()
    assert caplog.messages == [
        "request r1 model='m' mode=standard provider=b attempts=2 end=finish first_ms=250 ms=1500 tokens=5/2 bytes=0 "
        "failed: a=cut"
    ]


async def test_also_when_nothing_happened(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "proxy")
    it, _ = await journey()
    it.close()
    assert caplog.messages == [
        "request r1 model='m' mode=standard provider=none attempts=0 end=unfinished first_ms=- ms=0 tokens=0/0 bytes=0"
    ]


@pytest.mark.parametrize("model", ["m\nrequest r2 model='x' end=finish", "\ud800", "m" * 1_000_000])
async def test_a_client_writes_no_lines_of_its_own(model: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "proxy")
    it, _ = await journey(model)
    it.close()
    assert "\n" not in caplog.messages[0], "a client can forge lines of the log"
    assert len(caplog.messages[0].encode()) < 400, "a client can fill the log"


async def test_without_info_no_line_is_made(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "proxy")
    it, _ = await journey()
    it.close()
    assert caplog.messages == []


async def test_stop_reaches_whoever_waits() -> None:
    it, _ = await journey()
    it.stop("drained")
    it.stop("again")
    assert it.deadline.stopped == "drained"


async def test_a_branch_that_grows_late_is_steered_like_the_others() -> None:
    it, _ = await journey()
    it.interrupt()
    assert it.branch("m").deadline.stopped == STEERED


async def test_a_failure_that_is_kept_does_not_keep_what_it_happened_to() -> None:
    it, _ = await journey()
    try:
        raise ProviderError(Kind.CUT, "cut")
    except ProviderError as error:
        it.failed("a", error)
    assert it.failures["a"].__traceback__ is None
