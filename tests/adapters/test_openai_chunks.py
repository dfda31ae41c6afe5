"""One chunk of OpenAI's wire, read into events: each part of it once, and its bytes kept."""

import json
from typing import Any

import pytest

from proxy.adapters.openai_chunks import ChunkReader
from proxy.errors import Kind, ProviderError
from proxy.events import (
    Event,
    Finish,
    FinishStep,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolInputDelta,
    Usage,
    Vendor,
    commits,
)
from proxy.testing import chunk


def reader() -> ChunkReader:
    return ChunkReader(lambda text: text.replace("sk-secret", "[redacted]"))


def read(*chunks: Any) -> list[Event]:
    """All events of a stream of chunks, without their bytes."""
    one = reader()
    events = [event for each in chunks for event in one.read(json.dumps(each).encode())]
    for event in events:
        event.raw, event.parts = None, 1
    return events


START = Start(id="chatcmpl-1", model="scripted", created=1700000000)


def test_the_first_chunk_of_a_choice_starts_it_once() -> None:
    assert read(chunk({"role": "assistant", "content": ""}), chunk({"role": "assistant"})) == [START, Vendor()]


def test_text() -> None:
    assert read(chunk({"content": "Hel"}), chunk({"content": "lo"})) == [
        START,
        TextDelta(content="Hel"),
        TextDelta(content="lo"),
    ]


ODD: list[dict[str, Any]] = [
    {"reasoning": "hm"},
    {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]},
    {"refusal": "no"},
    {"images": [1]},
    {"mood": "sunny"},
    {"content": ""},
    {"content": None, "reasoning": "hm"},
]


@pytest.mark.parametrize("odd", ODD)
def test_what_came_before_does_not_change_how_a_chunk_is_read(odd: dict[str, Any]) -> None:
    """There is a short way for text alone, which is taken where text came last."""
    one, other = chunk({"content": "a"}), chunk({"content": "b", **odd})
    alone = read(chunk({"role": "assistant"}), other)[1:]
    for before in ([one], [one, one], [one, one, other], [one, one, other, one, one], [one, other, other]):
        events = read(*before, other)
        assert events[len(events) - len(alone) :] == alone, f"after {before}"


def test_of_text_alone_it_is_known_that_nothing_is_beside_it() -> None:
    plain = chunk({"content": "b", "role": "assistant", "refusal": None}, x_chunk=1)
    odd = chunk({"content": "c", "x": 1})
    texts = read(chunk({"content": "a"}), plain, plain, odd, plain, plain)[1:]
    assert [event.choice for event in texts] == [None, None, {}, None, None, None]


@pytest.mark.parametrize("number", [6, 0.005])
def test_a_number_for_a_text_is_a_text(number: float) -> None:
    """Cloudflare's Workers AI writes a token of digits as a number."""
    one = reader()
    events = [event for it in ("$", number, ".") for event in one.read(json.dumps(chunk({"content": it})).encode())]
    assert [event.content for event in events if isinstance(event, TextDelta)] == ["$", str(number), "."]
    assert json.loads(events[-2].raw or b"")["choices"][0]["delta"] == {"content": str(number)}


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_under_either_name(name: str) -> None:
    assert read(chunk({name: "hm"})) == [START, ReasoningDelta(content="hm")]


def test_details_of_a_thought_that_is_said_are_no_other_part_of_the_answer() -> None:
    events = read(chunk({"reasoning": "hm", "reasoning_details": [{"text": "hm"}]}))
    assert events == [START, ReasoningDelta(content="hm")]
    assert read(chunk({"content": "", "reasoning_details": [{"data": "gAAA"}]})) == [START], "nobody can read it"


def test_reasoning_comes_before_the_text_beside_it() -> None:
    events = read(chunk({"content": "so", "reasoning": "hm"}))
    assert events == [START, ReasoningDelta(content="hm"), TextDelta(content="so")]


def test_tool_calls_of_one_chunk_and_of_several() -> None:
    first = {"index": 0, "id": "t0", "type": "function", "function": {"name": "f", "arguments": ""}}
    both = [{"index": 0, "function": {"arguments": "{}"}}, {"index": 1, "id": "t1", "function": {"name": "g"}}]
    assert read(chunk({"tool_calls": [first]}), chunk({"tool_calls": both})) == [
        START,
        ToolInputDelta(id="t0", name="f"),
        ToolInputDelta(content="{}"),
        ToolInputDelta(slot=1, id="t1", name="g"),
    ]


@pytest.mark.parametrize("numbered", [{}, {"index": 0}])
def test_calls_that_are_not_numbered_or_all_alike_are_told_apart(numbered: dict[str, int]) -> None:
    """Gemini numbers none; some gateways give 0 to all. A later piece of a call may come with a new id, or none."""
    first, second = ({**numbered, "id": id, "function": {"name": id.upper(), "arguments": "{"}} for id in "ab")
    more, odd = ({**numbered, **said, "function": {"arguments": "}"}} for said in ({}, {"id": "z"}))
    calls = [[first, second], [more], [first | {"id": "c"}], [odd]]
    events = read(*(chunk({"tool_calls": each}) for each in calls))
    assert [(event.slot, event.content) for event in events if isinstance(event, ToolInputDelta)] == [
        (0, "{"),
        (1, "{"),
        (1, "}"),
        (2, "{"),
        (2, "}"),
    ]


def test_a_finish_reason_ends_the_choice_after_its_text() -> None:
    assert read(chunk({"content": "a"}, finish="length")) == [
        START,
        TextDelta(content="a"),
        FinishStep(reason="length"),
    ]


def test_an_empty_finish_reason_is_none() -> None:
    assert read(chunk({"content": "a"}, finish="")) == [START, TextDelta(content="a")]


def test_choices_are_kept_apart() -> None:
    both = [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]
    events = read(chunk(choices=both))
    assert [(type(event), event.index) for event in events] == [(Start, 1), (TextDelta, 1), (Start, 0), (TextDelta, 0)]


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 1}}


def test_usage_alone_is_an_event_and_part_of_the_end() -> None:
    one = reader()
    one.read(json.dumps(chunk({"content": "a"}, finish="stop")).encode())
    (usage,) = one.read(json.dumps(chunk(choices=[], usage=USAGE)).encode())
    assert isinstance(usage, Usage)
    assert (usage.input_tokens, usage.output_tokens, usage.details) == (5, 2, USAGE)
    assert one.finish().usage is usage


def test_usage_beside_the_last_text_is_part_of_the_end() -> None:
    one = reader()
    events = one.read(json.dumps(chunk({"content": "a"}, finish="stop", usage=USAGE)).encode())
    assert [type(event) for event in events] == [Start, TextDelta, FinishStep]
    assert (end := one.finish().usage) and end.input_tokens == 5  # noqa: PT018


def test_usage_in_the_choice_is_part_of_the_end_too() -> None:
    """Moonshot's: https://platform.moonshot.ai/docs/api/chat"""
    one = reader()
    one.read(json.dumps(chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}])).encode())
    assert (end := one.finish().usage) and end.input_tokens == 5  # noqa: PT018


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": None}, {"prompt_tokens": "5", "completion_tokens": -1}])
def test_odd_usage_counts_nothing(usage: dict[str, Any]) -> None:
    one = reader()
    one.read(json.dumps(chunk({"content": "a"}, finish="stop", usage=usage)).encode())
    counted = one.finish().usage or Usage()
    assert (counted.input_tokens, counted.output_tokens) == (0, 0)


@pytest.mark.parametrize(
    "delta",
    [
        {"refusal": "no"},
        {"audio": {"data": "UklGR"}},
        {"function_call": {"name": "f"}},
        {"images": [{"image_url": {"url": "data:"}}]},
        {"content": [{"type": "thinking"}]},
        {"content": "", "reasoning_details": [{"text": "hm"}]},
    ],
    ids=lambda delta: next(iter(delta)),
)
def test_a_part_of_an_answer_without_an_event_of_its_own_commits(delta: dict[str, Any]) -> None:
    first, second = read(chunk(delta)), read(chunk({"role": "assistant"}), chunk(delta), chunk(finish="stop"))
    assert first == [START, Vendor(answer=True)], "in the first chunk it was not seen"
    assert second[1] == Vendor(answer=True)
    assert commits(second[1]), "a client that has seen it would silently be given another answer"


@pytest.mark.parametrize(
    "delta",
    [
        {},
        {"role": "assistant"},
        {"content": "", "refusal": None, "audio": None, "function_call": None, "tool_calls": None, "images": None},
        {"content": None, "tool_calls": [], "images": []},
    ],
    ids=repr,
)
def test_a_chunk_that_says_nothing_does_not_commit(delta: dict[str, Any]) -> None:
    events = read(chunk({"role": "assistant"}), chunk(delta))
    assert events == [START, Vendor()]


@pytest.mark.parametrize(
    "payload",
    [
        {"id": "x", "object": "chat.completion.chunk", "choices": []},  # Azure's first chunk
        {"prompt_filter_results": [], "choices": []},
        {"choices": None, "usage": None, "error": None},
        {},
    ],
    ids=repr,
)
def test_a_chunk_without_choices_passes(payload: dict[str, Any]) -> None:
    assert read(payload) == [Vendor()]


def test_bytes_are_kept_and_events_of_one_chunk_share_them() -> None:
    payload = b'{ "choices" : [ {"index":0, "delta":{"content":"a","reasoning":"b"}, "x" : 1.0e0 } ] ,"odd":[ ]}'
    events = reader().read(payload)
    assert len(events) == 3
    for event in events:
        assert event.raw is events[0].raw, "the parts of one chunk do not share its bytes"
        assert (event.raw, event.parts) == (payload, 3)


def test_bytes_are_one_line() -> None:
    """JSON on several data lines is whole again, and must not break the event it is written into."""
    (_, text) = reader().read(b'{\n"choices": [\n{"delta": {"content": "a"}}\n]}')
    assert isinstance(text, TextDelta)
    assert text.raw == b'{ "choices": [ {"delta": {"content": "a"}} ]}'


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"<html>",
        b'{"choices": {}}',
        b'{"choices": [{"delta": {"content": true}}]}',
        b'{"choices": [5]}',
        b'{"choices": [{"delta": {"content": "\xff"}}]}',
        b'{"choices": [], "unknown": "\xff"}',
        b'{"choices": [], "unknown": NaN}',
        b'{"unknown": ' + b"[" * 100_000,
    ],
    ids=lambda payload: repr(payload)[:40],
)
def test_what_is_no_chunk_is_garbled(payload: bytes) -> None:
    with pytest.raises(ProviderError) as raised:
        reader().read(payload)
    assert raised.value.kind is Kind.GARBLED


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ({"message": "overloaded"}, Kind.SERVER, "overloaded"),
        ({"message": "overloaded", "code": 529}, Kind.SERVER, "overloaded"),
        ({"message": "slow down", "code": 429}, Kind.RATE_LIMIT, "slow down"),
        ({"message": "slow down", "code": "429"}, Kind.RATE_LIMIT, "slow down"),
        ({"message": "slow down", "code": "rate_limit_exceeded"}, Kind.RATE_LIMIT, "slow down"),
        ({"message": "slow down", "type": "rate_limit_error"}, Kind.RATE_LIMIT, "slow down"),
        ({"message": "too long", "code": 400, "type": "BadRequestError"}, Kind.REJECTED, "too long"),
        ({"message": "bad key sk-secret", "code": 401}, Kind.AUTH, "bad key [redacted]"),
        ({"message": "odd", "code": 7}, Kind.SERVER, "odd"),
        ("it broke", Kind.SERVER, "it broke"),
        ({"message": {"text": "it broke"}}, Kind.SERVER, "{'text': 'it broke'}"),
        ({"detail": "it broke"}, Kind.SERVER, "{'detail': 'it broke'}"),
        (True, Kind.SERVER, "True"),
    ],
)
def test_an_error_in_the_stream(error: Any, kind: Kind, message: str) -> None:
    with pytest.raises(ProviderError) as raised:
        read(chunk({"content": "a"}), {"error": error})
    assert (raised.value.kind, raised.value.message) == (kind, message)


def test_an_error_in_a_choice_is_one() -> None:
    """OpenRouter's, beside the finish_reason "error": https://openrouter.ai/docs/api/reference/overview"""
    broken = {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": {"code": 429, "message": "no"}}
    with pytest.raises(ProviderError) as raised:
        read(chunk({"content": "a"}), chunk(choices=[broken]))
    assert (raised.value.kind, raised.value.message) == (Kind.RATE_LIMIT, "no")


COMPLETE = [chunk({"content": "a"}), chunk(finish="stop")]


def finished(*chunks: Any, least: int = 1) -> Finish:
    one = reader()
    for each in chunks:
        one.read(json.dumps(each).encode())
    return one.finish(least)


def test_a_stream_is_complete_when_all_its_choices_are() -> None:
    assert finished(*COMPLETE) == Finish()
    assert finished(*COMPLETE, chunk({})) == Finish(), "an empty chunk after the end began it again"
    assert finished(*COMPLETE, chunk({"content": "b"}, index=1, finish="stop"), least=2) == Finish()


@pytest.mark.parametrize(
    ("chunks", "least"),
    [
        ([], 1),
        ([{}], 1),
        ([chunk(choices=[], usage=USAGE)], 1),
        ([chunk({"content": "a"})], 1),
        ([*COMPLETE, chunk({"content": "b"}, index=1)], 1),
        (COMPLETE, 2),
    ],
    ids=["nothing", "no choice", "only usage", "no finish_reason", "one of two", "the second never began"],
)
def test_a_stream_that_is_not_complete_is_cut(chunks: list[Any], least: int) -> None:
    with pytest.raises(ProviderError) as raised:
        finished(*chunks, least=least)
    assert raised.value.kind is Kind.CUT


@pytest.mark.parametrize("usage", [0, [], "none"])
def test_what_is_no_usage_in_a_choice_breaks_nothing(usage: object) -> None:
    one = chunk({"content": "a"})
    one["choices"][0]["usage"] = usage
    assert any(isinstance(event, TextDelta) for event in ChunkReader(str).read(json.dumps(one).encode()))
