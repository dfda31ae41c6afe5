"""What flows: the names on the wire, and the point after which nothing can be taken back."""

import msgspec
import pytest

from proxy.events import (
    Abort,
    Error,
    Event,
    Finish,
    FinishStep,
    Quiet,
    ReasoningDelta,
    Recovered,
    SourceEnd,
    Start,
    Steered,
    TextDelta,
    ToolInput,
    ToolInputDelta,
    ToolOutput,
    Usage,
    Vendor,
    commits,
)

# one of each, by the name that the AI SDK gives it
SAMPLES: dict[str, Event] = {
    "start": Start(id="c1", model="m", created=1700000000),
    "text-delta": TextDelta(content="Hel"),
    "reasoning-delta": ReasoningDelta(content="hm", extra={"signature": "s"}),
    "tool-input-delta": ToolInputDelta(content="{", slot=1, id="t1", name="f"),
    "tool-input-available": ToolInput(id="t1", name="f", input={"x": 1}),
    "tool-output-available": ToolOutput(id="t1", output="42"),
    "finish-step": FinishStep(reason="stop", index=1),
    "data-usage": Usage(input_tokens=5, output_tokens=2, details={"total_tokens": 7}),
    "data-vendor": Vendor(raw=b"{}", answer=True),
    "data-steer": Steered(instruction="shorter"),
    "data-recovery": Recovered(how="restarted", after=3, reason="it died"),
    "data-source-end": SourceEnd(reason="error", message="it broke", code="provider_error", source="a"),
    "data-quiet": Quiet(),
    "finish": Finish(usage=Usage(input_tokens=5)),
    "error": Error(message="it broke"),
    "abort": Abort(reason="shutdown"),
}


def test_there_is_a_sample_of_every_event() -> None:
    assert {type(sample) for sample in SAMPLES.values()} == set(Event.__subclasses__()), "an event is not tested here"


@pytest.mark.parametrize("name", SAMPLES)
def test_an_event_is_written_under_its_name_and_read_back(name: str) -> None:
    sample = SAMPLES[name]
    written = msgspec.json.encode(sample)
    assert msgspec.json.decode(written)["type"] == name
    assert msgspec.json.decode(written, type=type(sample)) == sample


def test_what_is_not_said_is_not_written() -> None:
    assert msgspec.json.encode(TextDelta(content="Hel")) == b'{"type":"text-delta","content":"Hel"}'


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Start(), False),
        (TextDelta(content="a"), True),
        (ReasoningDelta(content="a"), True),
        (ToolInputDelta(content=""), True),
        (FinishStep(reason="stop"), False),
        (Usage(), False),
        (Vendor(), False),
        (Vendor(answer=True), True),
        (Finish(), False),
        (Error(message="a"), False),
        (Abort(), False),
    ],
)
def test_only_a_part_of_an_answer_commits(event: Event, expected: bool) -> None:
    assert commits(event) is expected, f"{event} would {'not ' if expected else ''}rule out a silent retry"
