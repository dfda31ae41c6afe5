"""Each server-sent event has its position, and whoever comes back with one gets exactly what follows it."""

from collections.abc import Sequence

import pytest

from proxy.errors import WeirError
from proxy.events import (
    Error,
    Event,
    Finish,
    FinishStep,
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
)
from proxy.heading import Heading
from proxy.position import START, Position, read_position
from proxy.streaming_request import Format
from proxy.testing import says
from proxy.wire.formats import encoder_for
from proxy.wire.numbered import Numbered

FORMATS: list[Format] = ["openai", "sse", "ui"]
TOLD = [
    Start(id="1", model="m"),
    ReasoningDelta(content="hm"),
    TextDelta(content="line\n\nid: 7\n\ndata: x"),
    ToolInput(id="r", name="search", input={"q": 1}),
    ToolOutput(id="r", output=[1]),
    TextDelta(content="b"),
    ToolInputDelta(id="t", name="f"),
    ToolInputDelta(content="{}"),
    Steered(instruction="shorter"),
    TextDelta(content="c"),
    Recovered(how="restarted", after=9, reason="it died"),
    TextDelta(content="d"),
    ToolInputDelta(id="u", name="f", content="{}"),
    FinishStep(reason="stop"),
    Usage(input_tokens=1),
    Finish(usage=Usage(input_tokens=1)),
]
SEVERAL = [
    Start(source="a"),
    TextDelta(source="a", content="A"),
    Start(source="b"),
    TextDelta(source="b", content="B"),
    SourceEnd(source="b", reason="error", message="it broke", code="x"),
    FinishStep(source="a", reason="stop"),
    SourceEnd(source="a", reason="finish"),
    Finish(),
]
BROKEN = [*says("a")[:-2], Recovered(how="failed", reason="it died"), Error(message="it died")]
STREAMS = {"one": (TOLD, ["a"]), "several": (SEVERAL, ["a", "b"]), "broken": (BROKEN, ["a"])}


def blocks(format: Format, stream: str, after: Position = START) -> list[bytes]:
    """What a reader gets who has had everything up to `after`, block by block; two epochs wrote it."""
    events, sources = STREAMS[stream]
    heading = Heading("r1", "m", sources, include_usage=True, created=1, ui=7)
    half, place = len(events) // 2, START
    numbered = Numbered(encoder_for(format, heading), after, lambda: place)
    data = b""
    for seq, event in enumerate(events, start=1):
        event.seq = seq
        place = Position(1, seq, "0000000a") if seq <= half else Position(2, seq, "0000000b")
        data += numbered.encode(event)
    *found, rest = data.split(b"\n\n")
    assert not rest, "not whole blocks"
    return found


def split(block: bytes) -> tuple[Position, bytes]:
    line, _, said = block.partition(b"\n")
    assert line.startswith(b"id: "), f"a block without its position: {block!r}"
    return read_position(line[4:].decode()), said


def plain(format: Format, events: Sequence[Event], sources: list[str]) -> list[bytes]:
    heading = Heading("r1", "m", sources, include_usage=True, created=1, ui=7)
    encoder = encoder_for(format, heading)
    return b"".join(map(encoder.encode, events)).split(b"\n\n")[:-1]


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("format", FORMATS)
def test_but_for_the_ids_it_is_the_same_stream(format: Format, stream: str) -> None:
    said = [split(block)[1] for block in blocks(format, stream)]
    assert said == plain(format, *STREAMS[stream])


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("format", FORMATS)
def test_every_cut_is_resumed_exactly(format: Format, stream: str) -> None:
    whole = blocks(format, stream)
    for count, block in enumerate(whole, start=1):
        assert blocks(format, stream, split(block)[0]) == whole[count:], f"resumed after block {count}, {block!r}"


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("format", FORMATS)
def test_no_two_blocks_have_one_position_and_they_only_grow(format: Format, stream: str) -> None:
    places = [split(block)[0] for block in blocks(format, stream)]
    order = [(place.epoch, place.seq, place.part or 99) for place in places]
    assert order == sorted(set(order))


def test_an_event_of_several_blocks_has_parts_and_the_last_is_the_event() -> None:
    finish = [split(block)[0] for block in blocks("ui", "one")][-4:]
    assert [str(place) for place in finish[-3:]] == ["2-16.1-0000000b", "2-16.2-0000000b", "2-16-0000000b"]


def test_what_another_format_has_had_is_taken_for_the_event() -> None:
    """The event after it comes next, in whichever format."""
    place = Position(1, 5, "0000000a")
    for format in FORMATS:
        first, *_ = blocks(format, "one", place)
        assert split(first)[0].seq == 6, format


def test_an_event_that_was_cut_in_a_format_of_more_blocks_is_not_lost_in_one_of_fewer() -> None:
    (first, *_) = blocks("openai", "one", Position(1, 6, "0000000a", part=1))
    assert b'"content":"b"' in first


def test_an_error_of_the_reading_has_no_position() -> None:
    numbered = Numbered(encoder_for("openai", Heading("r1", "m", ["a"])), START, lambda: START)
    assert numbered.error(WeirError("no")).startswith(b"data: ")


def test_the_headers_are_those_of_the_format() -> None:
    inner = encoder_for("ui", Heading("r1", "m", ["a"]))
    assert Numbered(inner, START, lambda: START).content_headers == inner.content_headers
