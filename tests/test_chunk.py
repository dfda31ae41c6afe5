"""What a chunk says beside its text, and how chunks are added up (as an answer: tests/wire/test_openai_fold.py)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.openai_chunks import ChunkReader
from proxy.chunk import add_choice, add_delta, beside, plain_text
from proxy.events import TextDelta
from proxy.testing import chunk

PROBABLE = {"content": [{"token": "a", "logprob": -0.5}], "refusal": None}


def choice(delta: dict[str, Any], *, index: int = 0, **fields: Any) -> bytes:
    one = chunk({"content": "a", **delta}, index=index, system_fingerprint="fp", usage=None)
    one["choices"][0] |= fields
    return json.dumps(one).encode()


@pytest.mark.parametrize(
    ("delta", "fields", "found"),
    [
        ({"role": "assistant"}, {}, {}),
        ({"reasoning": "b", "reasoning_content": "c", "tool_calls": [{"index": 0}]}, {}, {}),
        ({"refusal": None, "x": None}, {"logprobs": None, "stop_reason": None}, {}),
        ({}, {"logprobs": PROBABLE}, {"logprobs": PROBABLE}),
        ({"annotations": [1]}, {"stop_reason": 7}, {"stop_reason": 7, "delta": {"annotations": [1]}}),
        ({"x": 0, "y": "", "z": False}, {}, {"delta": {"x": 0, "y": "", "z": False}}),
    ],
)
def test_what_stands_beside_the_text_is_found(delta: Any, fields: Any, found: Any) -> None:
    assert beside(choice(delta, **fields), 0) == found


@pytest.mark.parametrize(
    ("delta", "fields", "plain"),
    [
        ({}, {}, True),
        ({"role": "assistant", "refusal": None, "reasoning": None}, {"logprobs": None, "stop_reason": None}, True),
        ({"reasoning": "b"}, {}, False),
        ({"tool_calls": [{"index": 0}]}, {}, False),
        ({"content": [{"text": "a"}]}, {}, False),
        ({"tool_calls": [], "reasoning_content": ""}, {"finish_reason": ""}, True),
        ({"mood": None}, {}, False),
        ({}, {"logprobs": PROBABLE}, False),
        ({}, {"finish_reason": "stop"}, False),
    ],
)
def test_a_text_and_nothing_else_is_told_from_all_else(delta: Any, fields: Any, plain: bool) -> None:
    assert plain_text(choice(delta, index=3, **fields)) == ((3, "a") if plain else None)


def test_what_has_more_than_one_choice_or_none_is_no_text_alone() -> None:
    both = {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]}
    told = [
        {**both, "choices": both["choices"][:1], "usage": {"a": 1}},
        {"error": {}, **both},
        both,
        {"choices": []},
        {},
    ]
    assert [plain_text(json.dumps(it).encode()) for it in told] == [None] * 5


@pytest.mark.parametrize(
    "more", [{"refusal": "no"}, {"audio": {"id": "a"}}, {"images": [1]}, {"function_call": {"a": 1}}]
)
def test_what_another_event_of_the_chunk_tells_is_not_told_twice(more: dict[str, Any]) -> None:
    """The chunk has a Vendor event, and the rest of the delta is written with that."""
    raw = choice({**more, "x": 1}, logprobs=PROBABLE)
    kinds = [type(event).__name__ for event in ChunkReader(str).read(raw)]
    assert "Vendor" in kinds, f"this chunk was read as {kinds}"
    assert beside(raw, 0) == {"logprobs": PROBABLE}


def test_what_is_said_of_a_whole_choice_goes_with_its_end() -> None:
    raw = choice({"x": 1}, logprobs=PROBABLE, finish_reason="stop", content_filter_results={"hate": {}})
    assert beside(raw, 0) == {"logprobs": PROBABLE, "delta": {"x": 1}}


def test_each_choice_has_its_own() -> None:
    two = {"index": 1, "delta": {"content": "b"}, "logprobs": PROBABLE}
    one = {"delta": {"content": "a"}, "score": 3}  # an index of 0 may be left out
    raw = json.dumps(chunk(choices=[two, one])).encode()
    assert (beside(raw, 0), beside(raw, 1), beside(raw, 2)) == ({"score": 3}, {"logprobs": PROBABLE}, {})


@pytest.mark.parametrize(
    "raw", [b"{}", b'{"choices":null}', b'{"choices":[]}', b'{"choices":[{"index":null,"delta":null}]}']
)
def test_a_chunk_without_anything_is_fine(raw: bytes) -> None:
    assert beside(raw, 0) == {}


NAMES = ["content", "reasoning", "refusal", "audio", "x", "logprobs", "score", "finish_reason"]
VALUES = st.one_of(st.none(), st.text(max_size=2), st.dictionaries(st.sampled_from("ab"), st.integers(), max_size=1))


@given(st.dictionaries(st.sampled_from(NAMES[:5]), VALUES), st.dictionaries(st.sampled_from(NAMES[5:]), VALUES))
def test_whatever_can_be_read_can_be_asked(delta: dict[str, Any], fields: dict[str, Any]) -> None:
    raw = json.dumps(chunk(choices=[{"index": 0, "delta": delta, **fields}])).encode()
    found = beside(raw, 0)
    assert "content" not in found.get("delta", {})
    assert None not in [*found.values(), *found.get("delta", {}).values()]


def test_choices_are_added_up() -> None:
    whole: dict[str, Any] = {}
    for token, delta, score in [("a", {"x": "1", "list": [1]}, 1), ("b", {"x": "2", "list": [2]}, 2), ("c", {}, None)]:
        add_choice(whole, {"logprobs": {"content": [token]}, "delta": delta, "score": score, "safe": "yes"})
    assert whole == {
        "logprobs": {"content": ["a", "b", "c"]},
        "delta": {"x": "12", "list": [1, 2]},
        "score": 2,
        "safe": "yes",
    }, "texts of a delta are joined, what is said of the choice is not"


def test_a_list_goes_by_index_or_grows() -> None:
    whole = {"calls": [{"index": 1, "text": "a"}], "list": [1]}
    add_delta(whole, {"calls": [{"index": 0, "text": "b"}, {"index": 1, "text": "c"}], "list": [{"index": None}]})
    assert whole == {"calls": [{"index": 1, "text": "ac"}, {"index": 0, "text": "b"}], "list": [1, {"index": None}]}


@given(st.lists(st.sampled_from(["a", "b", "logprobs", "score"]), max_size=6))
def test_it_does_not_matter_in_how_many_steps_they_are_added_up(names: list[str]) -> None:
    """So a mode may add up some, and whoever reads the stream the rest."""

    def one(name: str, number: int) -> dict[str, Any]:
        return {name: {"content": [number]}} if name in ("logprobs", "score") else {"delta": {name: str(number)}}

    straight: dict[str, Any] = {}
    for number, name in enumerate(names):
        add_choice(straight, one(name, number))
    halves: list[dict[str, Any]] = [{}, {}]
    for number, name in enumerate(names):
        add_choice(halves[number >= len(names) // 2], one(name, number))
    add_choice(halves[0], halves[1])
    assert halves[0] == straight


def test_text_is_what_the_adapter_reads_as_text() -> None:
    (text,) = [event for event in ChunkReader(str).read(choice({}, logprobs=PROBABLE)) if isinstance(event, TextDelta)]
    assert text.raw is not None
    assert beside(text.raw, text.index) == {"logprobs": PROBABLE}
