"""Several sources on OpenAI's wire: each is a choice, and OpenAI's SDK adds each of them up by itself."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from proxy.events import (
    Abort,
    Error,
    Event,
    Finish,
    FinishStep,
    SourceEnd,
    Start,
    Steered,
    TextDelta,
    ToolInputDelta,
    Usage,
    Vendor,
)
from proxy.heading import Heading
from proxy.testing import chunk
from proxy.wire.openai_choices import ChoicesEncoder
from proxy.wire.openai_fold import Fold
from tests.wire.test_encoder import data_of
from tests.wire.test_openai import THREE, read


def of(source: str, *events: Event) -> list[Event]:
    for event in events:
        event.source = source
    return [*events]


def written(events: Sequence[Event], *, include_usage: bool = False) -> list[Any]:
    encoder = ChoicesEncoder(Heading("r1", "m", ["a", "b"], include_usage=include_usage))
    return data_of(b"".join(map(encoder.encode, events)))


def by_the_sdk(chunks: list[Any]) -> Any:
    state = ChatCompletionStreamState()
    for one in chunks:
        if one != "[DONE]":
            state.handle_chunk(ChatCompletionChunk.construct(**one))  # unchecked, as the SDK reads a stream
    return state.current_completion_snapshot.to_dict(mode="json", warnings=False)


def answer(source: str, *pieces: str, model: str) -> list[Event]:
    """As it comes from a provider on OpenAI's wire."""
    head: dict[str, Any] = {"id": f"id-{source}", "model": model, "system_fingerprint": f"fp-{source}"}
    chunks = [chunk({"role": "assistant", "content": ""}, **head), *(chunk({"content": p}, **head) for p in pieces)]
    counts = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    events = read(*chunks, chunk(finish="stop", **head), chunk(choices=[], usage=counts, **head))
    return of(source, *events, SourceEnd(reason="finish", usage=Usage(input_tokens=1, output_tokens=2)))


def side_by_side() -> list[Event]:
    """`b` begins, and they take turns."""
    pairs = zip(answer("b", "B", "b", model="mb"), answer("a", "A", "a", model="ma"), strict=True)
    return [*(event for pair in pairs for event in pair), Finish(usage=Usage(input_tokens=2, output_tokens=4))]


def test_the_sdk_adds_up_each_source_by_itself() -> None:
    whole = by_the_sdk(written(side_by_side()))
    said = [(choice["index"], choice["message"]["content"], choice["finish_reason"]) for choice in whole["choices"]]
    assert said == [(0, "Aa", "stop"), (1, "Bb", "stop")]
    assert {choice["message"]["role"] for choice in whole["choices"]} == {"assistant"}, "a role is told once"
    assert [choice["weir"] for choice in whole["choices"]] == [{"source": "a"}, {"source": "b"}]


def test_it_is_one_stream_with_one_id() -> None:
    *chunks, done = written(side_by_side())
    assert done == "[DONE]"
    assert {one["id"] for one in chunks} == {"chatcmpl-r1"}
    assert len({one["created"] for one in chunks}) == 1
    assert {(one["choices"][0]["index"], one["model"]) for one in chunks[1:]} == {(0, "ma"), (1, "mb")}
    assert {one["system_fingerprint"] for one in chunks[1:]} == {"fp-a", "fp-b"}, "a vendor's own fields are kept"


def test_tokens_are_told_once_for_all() -> None:
    counts = {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
    *_, last, done = written(side_by_side(), include_usage=True)
    assert (last["usage"], last["choices"], done) == (counts, [], "[DONE]")
    assert [one for one in written(side_by_side()) if "usage" in one] == []
    assert by_the_sdk(written(side_by_side(), include_usage=True))["usage"] == counts


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (
            SourceEnd(reason="error", message="it broke", code="provider_error"),
            {"source": "b", "message": "it broke", "code": "provider_error"},
        ),
        (SourceEnd(reason="abort", message="bye"), {"source": "b", "message": "bye", "code": "stopped"}),
    ],
)
def test_a_source_that_fails_is_a_choice_that_failed(end: SourceEnd, told: Any) -> None:
    begun = of("b", *read(chunk({"role": "assistant", "content": "B"})), end)
    events = [*begun, *answer("a", "A", model="ma"), Finish()]
    first, second = by_the_sdk(written(events))["choices"]
    assert (first["message"]["content"], first["finish_reason"]) == ("A", "stop")
    assert (second["message"]["content"], second["finish_reason"]) == ("B", "error")
    failed = [one["choices"][0] for one in written(events)[:-1] if one["choices"][0]["finish_reason"] == "error"]
    assert failed == [{"index": 1, "delta": {}, "finish_reason": "error", "weir": told}]


@pytest.mark.parametrize("last", [Error(message="every source failed"), Abort(reason="bye")])
def test_when_all_fail_the_stream_does(last: Event) -> None:
    ends = [of(name, SourceEnd(reason="error", message="no", code="c"))[0] for name in "ab"]
    *_, error = written([*ends, last])
    assert set(error["error"]) == {"message", "type", "param", "code"}


def test_what_is_held_of_one_source_does_not_wait_for_another_or_get_lost() -> None:
    """A chunk that was taken apart leaves whole if its events do, whoever speaks between them."""
    of_a, of_b = (of(name, *read(chunk({"role": "assistant"}), THREE)) for name in "ab")
    together = written([event for pair in zip(of_a, of_b, strict=True) for event in pair])
    three = {"reasoning_content": "b", "content": "a", "refusal": "no"}
    assert [one["choices"][0]["delta"] for one in together[1:]] == [{}, {}, three, three]
    torn = written([*of("a", *read(chunk({"role": "assistant"}), THREE)[:2]), Finish()])
    assert [one["choices"][0]["delta"] for one in torn[1:-1]] == [{}, {"reasoning_content": "b"}]


def test_events_without_bytes() -> None:
    events = [
        *of("b", Start(id="x", model="claude", created=7), ToolInputDelta(id="c", name="f", content="{}")),
        *of("b", Steered(instruction="in English"), FinishStep(reason="tool_calls")),
        *of("a", Start(model="gpt"), TextDelta(content="Hi")),
        Finish(),
    ]
    chunks = written(events)
    assert [(one["choices"][0]["index"], one["model"]) for one in chunks[1:-1]] == [(1, "claude")] * 4 + [
        (0, "gpt")
    ] * 2
    assert [one["weir"] for one in chunks[:-1] if "weir" in one] == [
        {"type": "data-steer", "instruction": "in English"}
    ]
    (call,) = by_the_sdk(chunks)["choices"][1]["message"]["tool_calls"]
    assert (call["id"], call["function"]["arguments"]) == ("c", "{}")


def test_a_chunk_without_choices_says_whose_it_is() -> None:
    raw = b'{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}'
    _, one = written(of("b", Vendor(raw=raw)))
    assert (one["weir"], one["prompt_filter_results"]) == ({"source": "b"}, [{"prompt_index": 0}])


def test_an_event_of_nobodys_is_not_lost() -> None:
    """A mode may say something by itself."""
    _, one = written([TextDelta(content="(both are asked)")])
    assert one["choices"][0]["delta"] == {"content": "(both are asked)"}


def test_an_answer_in_one_piece() -> None:
    fold = Fold(ChoicesEncoder(Heading("r1", "m", ["a", "b"], include_usage=False)))
    broken = of("b", Start(), TextDelta(content="B"), SourceEnd(reason="error", message="it broke", code="c"))
    for event in [*broken, *answer("a", "A", model="ma"), Finish(usage=Usage(input_tokens=1, output_tokens=2))]:
        fold.add(event)
    whole = json.loads(json.dumps(fold.completion()))
    first, second = whole["choices"]
    assert (first["index"], first["message"], first["finish_reason"]) == (
        0,
        {"role": "assistant", "content": "A"},
        "stop",
    )
    assert second == {
        "index": 1,
        "message": {"role": "assistant", "content": "B"},
        "finish_reason": "error",
        "weir": {"source": "b", "message": "it broke", "code": "c"},
    }
    assert (whole["id"], whole["model"], whole["usage"]["total_tokens"]) == ("chatcmpl-r1", "m", 3)
