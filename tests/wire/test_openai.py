"""What is written on OpenAI's wire: a provider's own bytes where there are some, sound chunks where there are none."""

import copy
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletionChunk

from proxy.adapters.openai_chunks import ChunkReader
from proxy.errors import Kind, NoAnswer, ProviderError
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
from proxy.heading import Heading
from proxy.testing import chunk
from proxy.wire.openai import DONE, ChunkEncoder


def read(*payloads: Any) -> list[Event]:
    """The events of these chunks, as the adapter for OpenAI's wire reads them."""
    reader = ChunkReader(lambda text: text)
    texts = (payload if isinstance(payload, bytes) else json.dumps(payload).encode() for payload in payloads)
    return [event for text in texts for event in reader.read(text)]


def written(events: Sequence[Event], *, include_usage: bool = False) -> list[bytes]:
    """The data of every event on the wire."""
    encoder = ChunkEncoder(Heading("r1", "asked", ["asked"], include_usage=include_usage))
    stream = b"".join(map(encoder.encode, events))
    *frames, rest = stream.split(b"\n\n")
    assert not rest, f"not whole events: {stream!r}"
    assert all(frame.startswith(b"data: ") for frame in frames), f"not all of it is data: {stream!r}"
    return [frame[6:] for frame in frames]


def changed(event: Event) -> Event:
    """As a mode would: a new event, without the provider's bytes."""
    event = copy.copy(event)
    event.raw, event.parts = None, 1
    return event


def deltas(texts: Sequence[bytes]) -> list[Any]:
    return [choice["delta"] for text in texts if text != b"[DONE]" for choice in json.loads(text)["choices"]]


AS_IT_CAME = {
    "odd white space": b'{ "choices" :[ {"index":0 ,"delta":{"content":"a" }}]\t}',
    "unknown fields": b'{"x_new":{"a":[1,null]},"choices":[{"index":0,"delta":{"content":"a","x":1},"y":2}]}',
    "unicode": '{"choices":[{"index":0,"delta":{"content":"漢\u2028\U0001f600\\u00e9é"}}]}'.encode(),
    "numbers": b'{"created":1.0,"choices":[{"index":0,"delta":{"content":"a"},"score":1e-07,"big":123456789012345}]}',
    "text and reasoning": b'{"choices":[{"index":0,"delta":{"content":"a","reasoning_content":"b"}}]}',
    "two choices": b'{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}',
    "everything": b'{"choices":[{"index":0,"delta":{"role":"assistant","content":"a","reasoning":"b","tool_calls":'
    b'[{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}},{"index":1,"id":"d","function":{"name":"g"}}],'
    b'"refusal":"no"},"finish_reason":"tool_calls"}]}',
    "nothing we know": b'{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}',
    "usage beside text": b'{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":1}}',
}


@pytest.mark.parametrize("name", AS_IT_CAME)
def test_a_chunk_leaves_as_it_came_and_once(name: str) -> None:
    text = AS_IT_CAME[name]
    assert written(read(text)) == [text], f"{name}: written otherwise"
    before = b'{"choices":[{"index":0,"delta":{"role":"assistant"}}]}'
    assert written([*read(before, text, text), Finish()]) == [before, text, text, b"[DONE]"], f"{name}: out of place"


THREE = chunk({"reasoning_content": "b", "content": "a", "refusal": "no"})


@pytest.mark.parametrize("spoilt", [0, 1, 2, 3])
def test_a_chunk_of_which_an_event_was_changed_is_rebuilt_and_nothing_is_lost(spoilt: int) -> None:
    events = read(chunk({"role": "assistant"}), THREE, chunk({"content": "z"}), chunk(finish="stop"))
    events[spoilt + 1] = changed(events[spoilt + 1]) if spoilt < 3 else events[spoilt + 1]
    said = deltas(written([*events, Finish()]))
    expected = [
        {"role": "assistant"},
        {"reasoning_content": "b"},
        {"content": "a"},
        {"refusal": "no"},
        {"content": "z"},
        {},
    ]
    if spoilt == 2:  # without its bytes nobody knows what it said
        expected.remove({"refusal": "no"})
    if spoilt == 3:
        expected[1:4] = [{"reasoning_content": "b", "content": "a", "refusal": "no"}]
    assert said == expected


@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_a_chunk_of_which_an_event_was_dropped_is_rebuilt_without_it(dropped: int) -> None:
    events = read(chunk({"role": "assistant"}), THREE, chunk({"content": "z"}))
    del events[dropped + 1]
    expected: list[Any] = [{"reasoning_content": "b"}, {"content": "a"}, {"refusal": "no"}]
    del expected[dropped]
    assert deltas(written(events)) == [{"role": "assistant"}, *expected, {"content": "z"}]


@pytest.mark.parametrize("end", [Finish(), Error(message="broke"), Abort(reason="stop")])
def test_what_is_held_leaves_before_the_end(end: Event) -> None:
    events = read(THREE)[:1]
    first, *rest = written([*events, end])
    assert deltas([first]) == [{"role": "assistant", "content": ""}]
    assert len(rest) == 1, f"{end} was written as {rest}"


def test_a_rebuilt_chunk_belongs_to_the_same_completion() -> None:
    facts: dict[str, Any] = {"system_fingerprint": "fp", "service_tier": "default", "provider": "Together"}
    only_once: dict[str, Any] = {"obfuscation": "x7", "usage": None, "prompt_token_ids": [1, 2]}
    first, second = read(chunk({"role": "assistant"}, **facts, **only_once), chunk({"content": "a"}, **facts))
    texts = [json.loads(text) for text in written([first, changed(second)])]
    for field in ("id", "model", "created", "object", *facts):
        assert texts[0][field] == texts[1][field], f"{field} changes within one completion"
    assert not only_once.keys() & texts[1].keys(), "what was said of one chunk was said of another"


LAST = chunk({"content": "a", "annotations": [1]}, finish="stop")
LAST["choices"][0] |= {"logprobs": {"content": [{"token": "a"}]}, "stop_reason": "eos"}


def choices(events: Sequence[Event]) -> list[Any]:
    return [json.loads(text)["choices"][0] for text in written(events) if text != b"[DONE]"]


def test_an_end_without_its_text_keeps_what_was_said_of_the_choice() -> None:
    """A mode has cut the text anew; it took along what stood beside it."""
    start, text, end = read(chunk({"role": "assistant"}), LAST)
    beside = {"logprobs": {"content": [{"token": "a"}]}, "delta": {"annotations": [1]}}
    assert choices([start, TextDelta(content="la la a", choice=beside), end, Finish()])[1:] == [
        {
            "index": 0,
            "logprobs": {"content": [{"token": "a"}]},
            "delta": {"annotations": [1], "content": "la la a"},
            "finish_reason": None,
        },
        {"index": 0, "stop_reason": "eos", "delta": {}, "finish_reason": "stop"},
    ]
    assert choices([start, end, Finish()])[1] == choices([start, changed(text), end, Finish()])[2]


def test_a_text_without_its_end_keeps_what_stood_beside_it() -> None:
    start, text, _ = read(chunk({"role": "assistant"}), LAST)
    assert choices([start, text, Finish()])[1] == {
        "index": 0,
        "logprobs": {"content": [{"token": "a"}]},
        "delta": {"annotations": [1], "content": "a"},
        "finish_reason": None,
    }


def test_a_stream_that_was_steered_is_marked() -> None:
    marker = {"type": "data-steer", "instruction": "shorter"}
    first, second = read(chunk({"role": "assistant"}), chunk({"content": "a"}, id="another"))
    _, marked, _ = (json.loads(text) for text in written([first, Steered(instruction="shorter"), second]))
    assert marked["weir"] == marker
    assert marked["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]
    ChatCompletionChunk.model_validate(marked, strict=True)


USAGE = chunk(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4})


def test_tokens_are_told_only_to_those_who_asked() -> None:
    events = [*read(chunk({"content": "a"}), USAGE), Finish()]
    counted = json.dumps(USAGE).encode()
    assert counted in written(events, include_usage=True)
    assert counted not in written(events)
    torn = [*read(THREE)[:1], *read(USAGE), Finish()]
    assert counted in written(torn, include_usage=True)
    assert counted not in written(torn), "the usage chunk slipped out behind a chunk that was rebuilt"
    built = [Start(), Usage(input_tokens=3, output_tokens=1), Finish()]
    assert [json.loads(text).get("usage") for text in written(built, include_usage=True)[:-1]] == [None, USAGE["usage"]]
    assert len(written(built)) == 2


def test_tokens_told_beside_the_end_of_a_choice_are_told_where_its_chunk_was_taken_apart() -> None:
    start, text, end = read(chunk({"content": "a"}, finish="stop", usage=USAGE["usage"]))
    stream = [start, changed(text), end, Finish(usage=Usage(input_tokens=3, output_tokens=1))]
    assert json.loads(written(stream, include_usage=True)[-2])["usage"] == USAGE["usage"]
    assert b"usage" not in written(stream)[-2]


def test_only_a_complete_stream_is_done() -> None:
    assert written([Start(), Finish()])[-1] == b"[DONE]"
    for end in (Error(message="broke", code="provider_error"), Abort(reason="bye")):
        *_, last = written([Start(), end])
        error = json.loads(last)["error"]
        assert set(error) == {"message", "type", "param", "code"}, f"{end} is not in OpenAI's shape"
    failed = ChunkEncoder(Heading("r1", "asked", ["asked"], include_usage=False)).error(
        NoAnswer({"a": ProviderError(Kind.CUT, "cut")})
    )
    assert b"[DONE]" not in failed
    assert DONE == b"data: [DONE]\n\n"


BUILT: list[Event] = [
    Start(id="c1", model="m", created=1700000000),
    Start(),
    TextDelta(content="漢 \U0001f600", index=2),
    TextDelta(content=""),
    ReasoningDelta(content="hm", extra={"thinking_blocks": [{"type": "thinking", "signature": "s"}]}),
    ToolInputDelta(slot=1, id="call_1", name="f", content=""),
    ToolInputDelta(slot=1, content='{"a'),
    FinishStep(reason="tool_calls", index=1),
    Usage(input_tokens=3, output_tokens=4),
    Usage(
        input_tokens=3,
        output_tokens=4,
        details={"prompt_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 1}},
    ),
]


@pytest.mark.parametrize("event", BUILT, ids=lambda event: type(event).__name__)
def test_a_built_chunk_is_one_of_openais(event: Event) -> None:
    (text,) = written([event], include_usage=True)
    seen = ChatCompletionChunk.model_validate(msgspec.json.decode(text), strict=True)
    assert seen.object == "chat.completion.chunk"
    again = [event for event in ChunkReader(lambda text: text).read(text) if type(event) is not Start]
    if type(event) is not Start and event != TextDelta(content=""):
        assert (type(again[0]), again[0].index) == (type(event), event.index), f"{event} is read again as {again}"


def test_what_the_wire_has_no_word_for_is_not_written() -> None:
    unspoken: list[Event] = [Vendor(), Vendor(answer=True), SourceEnd(reason="finish")]
    run_by_an_agent: list[Event] = [ToolInput(id="c", name="f"), ToolOutput(id="c", output=1)]
    assert written([*unspoken, *run_by_an_agent]) == []


@pytest.mark.parametrize(("how", "after"), [("continued", 0), ("restarted", 7), ("failed", 0)])
def test_what_became_of_a_broken_answer_is_a_chunk_that_every_sdk_reads(how: Any, after: int) -> None:
    (data,) = written([Recovered(how=how, after=after, reason="it died")])
    chunk = ChatCompletionChunk.model_validate_json(data)
    assert (chunk.choices[0].delta.content, chunk.choices[0].finish_reason) == (None, None)
    assert json.loads(data)["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]
    told = {"type": "data-recovery", "how": how, "after": after, "reason": "it died"}
    assert json.loads(data)["weir"] == told
