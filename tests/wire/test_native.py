"""The guide's events, as a client reads them."""

import json
from typing import Any

import pytest

from proxy.events import (
    Abort,
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
    Vendor,
)
from proxy.wire.native import NativeEncoder, fields

USED = Usage(input_tokens=3, output_tokens=2)
COUNTED = {"input_tokens": 3, "output_tokens": 2}


def read(event: Event) -> Any:
    frame = NativeEncoder().encode(event)
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    return json.loads(frame[6:])


def test_the_guides_own_example() -> None:
    event = TextDelta(content="...", source="openai_gpt35", seq=3)
    frame = b'data: {"type":"text-delta","content":"...","source":"openai_gpt35","seq":3}\n\n'
    assert NativeEncoder().encode(event) == frame


SAID: list[tuple[Event, dict[str, Any]]] = [
    (Start(id="c1", model="m", created=7), {"id": "c1", "model": "m", "created": 7}),
    (Start(), {}),
    (TextDelta(content="a"), {"content": "a"}),
    (TextDelta(content="", choice={"logprobs": {}}), {"content": ""}),
    (ReasoningDelta(content="hm"), {"content": "hm"}),
    (ReasoningDelta(content="", extra={"signature": "s"}), {"content": "", "extra": {"signature": "s"}}),
    (ToolInputDelta(id="c", name="f"), {"content": "", "slot": 0, "id": "c", "name": "f"}),
    (ToolInputDelta(slot=1, content="{}"), {"content": "{}", "slot": 1}),
    (ToolInput(id="c", name="f", input={"x": 1}), {"id": "c", "name": "f", "input": {"x": 1}}),
    (ToolInput(id="c", name="f"), {"id": "c", "name": "f", "input": None}),
    (ToolOutput(id="c", output=None), {"id": "c", "output": None}),
    (ToolOutput(id="c", error="no"), {"id": "c", "error": "no"}),
    (FinishStep(reason="stop"), {"reason": "stop"}),
    (USED, COUNTED),
    (Usage(details={"total_tokens": 0}), {"input_tokens": 0, "output_tokens": 0, "details": {"total_tokens": 0}}),
    (Vendor(raw=b'{"x": [1e-7]}'), {"data": {"x": [1e-7]}}),
    (Vendor(), {}),
    (Steered(instruction="shorter"), {"instruction": "shorter"}),
    (Vendor(choice={"delta": {"refusal": "no"}}), {"data": {"delta": {"refusal": "no"}}}),
    (Recovered(how="continued"), {"how": "continued"}),
    (Recovered(how="restarted", after=3, reason="died"), {"how": "restarted", "after": 3, "reason": "died"}),
    (SourceEnd(reason="finish", usage=USED), {"reason": "finish", "usage": COUNTED}),
    (SourceEnd(reason="error", message="no", code="c"), {"reason": "error", "message": "no", "code": "c"}),
    (Finish(), {}),
    (Finish(usage=USED), {"usage": COUNTED}),
    (Error(message="it broke", code="provider_error"), {"error": "it broke", "code": "provider_error"}),
    (Abort(reason="bye"), {"reason": "bye"}),
]


@pytest.mark.parametrize(("event", "own"), SAID, ids=lambda it: type(it).__name__ if isinstance(it, Event) else "")
def test_an_event_says_what_it_is_and_whose(event: Event, own: dict[str, Any]) -> None:
    assert read(event) == {"type": event.__struct_config__.tag, **own, "source": "", "seq": 0}
    event.source, event.seq, event.index = "a", 9, 1
    assert read(event) == {"type": event.__struct_config__.tag, **own, "index": 1, "source": "a", "seq": 9}


def test_every_event_that_leaves_the_house_has_its_words() -> None:
    missing = {kind.__name__ for kind in Event.__subclasses__()} - {type(event).__name__ for event, _ in SAID}
    assert missing == {"Quiet"}


def test_a_vendors_json_is_written_as_it_came() -> None:
    raw = b'{ "odd" :[ 1.0,"\\u00e9" ]}'
    assert b'"data":' + raw in NativeEncoder().encode(Vendor(raw=raw))


def test_the_same_for_a_websocket() -> None:
    assert fields(TextDelta(content="a", seq=1)) == {"type": "text-delta", "content": "a", "source": "", "seq": 1}


def test_sources_of_a_translated_vendor_are_told_in_our_own_format() -> None:
    assert fields(Vendor(choice={}, chunk={"citations": ["u"]}))["data"] == {"citations": ["u"]}
