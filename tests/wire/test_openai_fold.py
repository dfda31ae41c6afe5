"""An answer that is not streamed is what OpenAI's own SDK makes of the stream."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from proxy.adapters.openai_chunks import ChunkReader
from proxy.events import (
    Event,
    Finish,
    FinishStep,
    ReasoningDelta,
    Recovered,
    Start,
    Steered,
    TextDelta,
    ToolInputDelta,
    Usage,
)
from proxy.heading import Heading
from proxy.merge import Merge
from proxy.modes.chunked import Chunked
from proxy.testing import chunk
from proxy.wire.openai import ChunkEncoder
from proxy.wire.openai_fold import Fold
from tests.wire.test_openai import changed, read


def folded(events: list[Event]) -> dict[str, Any]:
    fold = Fold(ChunkEncoder(Heading("r1", "asked", ["asked"], include_usage=False)))
    for event in events:
        fold.add(event)
    completion = fold.completion()
    ChatCompletion.model_validate(completion)
    return completion


def relayed(*chunks: Any) -> dict[str, Any]:
    """What becomes of chunks that came on OpenAI's wire."""
    return folded([*read(*chunks), Finish()])


def message(*chunks: Any) -> Any:
    return relayed(*chunks, chunk(finish="stop"))["choices"][0]["message"]


def by_the_sdk(chunks: list[Any]) -> dict[str, Any]:
    state = ChatCompletionStreamState()
    for one in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(one))
    completion = state.current_completion_snapshot.to_dict(mode="json")
    for choice in completion["choices"]:  # type: ignore[attr-defined]
        choice["message"].pop("parsed", None)
        for call in choice["message"].get("tool_calls") or ():
            call.pop("index", None)
            call["function"].pop("parsed_arguments", None)
    return completion


def pieces(draw: st.DrawFn, text: str) -> list[str]:
    """The text, cut anywhere."""
    edges = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in zip([0, *edges], [*edges, len(text)], strict=True)]


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@st.composite
def streams(draw: st.DrawFn) -> list[Any]:
    """The chunks of one completion: choices side by side, each with what a model may say, in pieces."""
    lanes = []
    for index in range(draw(st.integers(1, 3))):
        lane = [chunk({"role": "assistant", "content": ""}, index=index)]
        for field in draw(st.permutations(["reasoning_content", "content", "refusal", "x_unknown"])):
            if draw(st.booleans()):
                lane += [chunk({field: piece}, index=index) for piece in pieces(draw, draw(TEXTS))]
        for slot in range(draw(st.integers(0, 2))):
            call = {"index": slot, "id": f"call_{slot}", "type": "function", "function": {"name": "f", "arguments": ""}}
            lane.append(chunk({"tool_calls": [call]}, index=index))
            for piece in pieces(draw, draw(TEXTS)):
                lane.append(chunk({"tool_calls": [{"index": slot, "function": {"arguments": piece}}]}, index=index))
        for token in draw(st.lists(st.sampled_from("abc"), max_size=3)):
            lane.append(chunk({"content": token}, index=index))
            probability = {"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []}
            lane[-1]["choices"][0]["logprobs"] = {"content": [probability], "refusal": None}
        lanes.append([*lane, chunk({}, index=index, finish=draw(st.sampled_from(["stop", "length"])))])
    openings = [lane.pop(0) for lane in lanes]  # in order: the SDK puts choices where they first appear
    chunks = [*openings]
    while waiting := [lane for lane in lanes if lane]:
        chunks.append(draw(st.sampled_from(waiting)).pop(0))
    counts = {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    return [*chunks, chunk(choices=[], usage=counts)]


@settings(deadline=None)
@given(streams())
def test_a_fold_is_what_openais_sdk_makes_of_the_stream(chunks: list[Any]) -> None:
    reader = ChunkReader(lambda text: text)
    events = [event for one in chunks for event in reader.read(json.dumps(one).encode())]
    ours, theirs = folded([*events, reader.finish()]), by_the_sdk(chunks)
    assert ours["usage"] == theirs["usage"]
    for mine, its in zip(ours["choices"], theirs["choices"], strict=True):
        said = {name: value for name, value in its["message"].items() if value is not None}
        if said.get("tool_calls") and not said.get("content"):
            said.pop("content", None)
        assert {name: value for name, value in mine["message"].items() if value is not None} == said
        assert (mine["finish_reason"], mine["index"]) == (its["finish_reason"], its["index"])
        assert mine.get("logprobs") == its.get("logprobs")


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_a_message_has_the_shape_of_a_message() -> None:
    assert message(chunk({"content": "a"})) == {"role": "assistant", "content": "a"}
    assert message(chunk({"role": None, "content": "a"}))["role"] == "assistant", "a role of null is no role"
    called = message(chunk({"role": "assistant", "content": ""}), chunk({"tool_calls": [CALL]}))
    assert called["content"] is None, "with tool calls alone, content is null"
    assert called["tool_calls"] == [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    both = message(chunk({"content": "I look."}), chunk({"tool_calls": [CALL]}))
    assert both["content"] == "I look."
    assert message(chunk({"role": "assistant", "content": ""})) == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    "more",
    [
        {"id": "", "type": "function", "function": {"arguments": "1}"}},  # DashScope
        {"type": "function", "function": {"name": "", "arguments": "1}"}},  # LM Studio, SiliconFlow
        {"type": "", "function": {"arguments": "1}"}},  # Novita
        {"id": None, "type": None, "function": {"name": None, "arguments": "1}"}},
        {**CALL, "function": {"name": "f", "arguments": "1}"}},
    ],
)
def test_a_tool_call_keeps_what_its_first_piece_said(more: dict[str, Any]) -> None:
    first = {**CALL, "function": {"name": "f", "arguments": '{"a":'}}
    (call,) = message(chunk({"tool_calls": [first]}), chunk({"tool_calls": [{"index": 0, **more}]}))["tool_calls"]
    assert call == {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


@pytest.mark.parametrize("type", [{}, {"type": None}, {"type": ""}])
def test_a_tool_call_without_a_type_is_a_functions(type: dict[str, Any]) -> None:
    untyped = {name: value for name, value in CALL.items() if name != "type"} | type
    (call,) = message(chunk({"tool_calls": [untyped]}))["tool_calls"]
    assert call["type"] == "function"


def test_tool_calls_of_one_chunk_and_without_an_index_are_all_kept() -> None:
    second = {"id": "d", "type": "function", "function": {"name": "g", "arguments": "{}"}}
    calls = message(chunk({"tool_calls": [CALL, {**second, "index": 1}]}), chunk({"tool_calls": [second]}))[
        "tool_calls"
    ]
    assert [call["id"] for call in calls] == ["c", "d", "d"]


def test_what_some_providers_repeat_is_not_strung_together() -> None:
    """OpenRouter marks every piece of a thought; others name the tool and the role again with every piece."""
    piece = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0, "text": "hm "}
    said = {"role": "assistant", "reasoning_details": [piece], "tool_calls": [CALL]}
    again = message(chunk(said), chunk(said))
    assert again["reasoning_details"] == [piece | {"text": "hm hm "}]
    assert again["tool_calls"] == [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}{}"}}]


def test_calls_that_are_not_numbered_or_all_alike_are_told_apart() -> None:
    for numbered in ({}, {"index": 0}):
        call = {**numbered, "type": "function", "function": {"name": "f", "arguments": "{"}}
        first, second = call | {"id": "a"}, call | {"id": "b"}
        more = {**numbered, "function": {"arguments": "}"}}
        calls = message(*(chunk({"tool_calls": [call]}) for call in (first, more, second, more)))["tool_calls"]
        assert [(call["id"], call["function"]["arguments"]) for call in calls] == [("a", "{}"), ("b", "{}")]


def test_thoughts_of_another_kind_stay_what_they_are() -> None:
    """OpenRouter gives the index 0 to a summary's pieces, and to what is encrypted after it."""
    pieces = [
        {"type": "reasoning.summary", "summary": "I ", "index": 0},
        {"type": "reasoning.summary", "summary": "add", "index": 0},
        {"type": "reasoning.encrypted", "data": "gA", "id": "rs_1", "index": 0},
        {"type": "reasoning.encrypted", "data": "gB", "id": "rs_2", "index": 0},
    ]
    said = message(*(chunk({"reasoning_details": [piece]}) for piece in pieces))
    assert said["reasoning_details"] == [pieces[0] | {"summary": "I add"}, pieces[2], pieces[3]]


def test_a_name_is_not_lost_where_later_pieces_leave_it_empty() -> None:
    """DashScope, DeepSeek and LM Studio say `id: ""` and `name: ""` where OpenAI says nothing."""
    rest = {"index": 0, "id": "", "type": "", "function": {"name": "", "arguments": "{}"}}
    first = CALL | {"function": {"name": "f", "arguments": ""}}
    said = message(chunk({"role": "assistant", "tool_calls": [first]}), chunk({"role": "", "tool_calls": [rest]}))
    assert said["tool_calls"] == [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def test_a_content_that_comes_as_text_and_as_parts_is_kept_whole() -> None:
    """Mistral's, where it thinks or cites."""
    cited, thought = {"type": "reference", "reference_ids": [1]}, {"type": "thinking", "thinking": []}
    pieces = ["", [thought], "Rome ", "is ", [cited], "big", "."]
    events = read(*(chunk({"role": "assistant", "content": piece}) for piece in pieces))
    bare = [Start(), *(changed(event) if isinstance(event, TextDelta) else event for event in events[1:])]
    text, more = {"type": "text", "text": "Rome is "}, {"type": "text", "text": "big."}
    for said in (events, bare):
        fold = Fold(ChunkEncoder(Heading("r1", "asked", ["asked"], include_usage=False)))
        for event in said:
            fold.add(event)
        assert fold.completion()["choices"][0]["message"]["content"] == [thought, text, cited, more]


def test_what_is_said_of_a_whole_choice_is_not_strung_together() -> None:
    def filtered(text: str) -> Any:
        one = chunk({"content": text})
        one["choices"][0]["content_filter_results"] = {"hate": {"filtered": False, "severity": "safe"}}
        return one

    end = chunk(finish="stop")
    end["choices"][0]["content_filter_results"] = {}  # Azure's last chunk
    choice = relayed(filtered("a"), filtered("b"), end)["choices"][0]
    assert choice["content_filter_results"] == {"hate": {"filtered": False, "severity": "safe"}}


def test_what_grows_with_the_answer_is_told_as_it_was_in_the_end() -> None:
    """llama.cpp's timings, Perplexity's sources; and what pads a chunk is not told."""
    first = chunk({"content": "a"}, timings={"predicted_n": 1}, citations=["x"], obfuscation="aB3")
    whole = relayed(first, chunk(finish="stop", timings={"predicted_n": 2}, citations=["x", "y"]), chunk(citations=[]))
    assert (whole["timings"], whole["citations"]) == ({"predicted_n": 2}, ["x", "y"])
    assert "obfuscation" not in whole


def test_a_first_chunk_that_says_nothing_does_not_name_the_completion() -> None:
    azure = {
        "id": "",
        "object": "",
        "created": 0,
        "model": "",
        "choices": [],
        "prompt_filter_results": [{"prompt_index": 0}],
    }
    whole = relayed(azure, chunk({"content": "a"}, system_fingerprint="fp"), chunk(finish="stop"))
    assert (whole["id"], whole["model"], whole["created"]) == ("chatcmpl-1", "scripted", 1700000000)
    assert (whole["system_fingerprint"], whole["object"]) == ("fp", "chat.completion")
    assert whole["prompt_filter_results"] == [{"prompt_index": 0}]


def test_events_without_bytes_fold_too() -> None:
    whole = folded(
        [
            Start(id="c1", model="claude", created=7),
            ReasoningDelta(content="h"),
            ReasoningDelta(content="m", extra={"thinking_blocks": [{"type": "thinking", "signature": "s"}]}),
            TextDelta(content="Hel"),
            TextDelta(content="lo"),
            ToolInputDelta(slot=0, id="a", name="f", content='{"x"'),
            ToolInputDelta(slot=0, content=":1}"),
            FinishStep(reason="tool_calls"),
            Finish(usage=Usage(input_tokens=3, output_tokens=2)),
        ]
    )
    assert whole["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Hello",
        "reasoning_content": "hm",
        "thinking_blocks": [{"type": "thinking", "signature": "s"}],
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}],
    }
    assert whole["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert (whole["id"], whole["model"], whole["created"]) == ("c1", "claude", 7)


@pytest.mark.parametrize("touch", ["changed", "dropped"])
def test_a_chunk_of_which_an_event_was_touched_is_not_added_whole(touch: str) -> None:
    start, thought, text, end = read(chunk({"reasoning_content": "secret", "content": "a"}, finish="stop"))
    kept = [changed(text)] if touch == "changed" else []
    said = folded([start, thought, *kept, end, Finish()])["choices"][0]["message"]
    assert said.get("content") == ("a" if kept else ""), f"a chunk whose text was {touch} gave {said}"
    assert said["reasoning_content"] == "secret"


def content(*events: Event) -> Any:
    return folded([Start(), *events, FinishStep(reason="stop"), Finish()])["choices"][0]["message"]["content"]


A, B, C = (TextDelta(content=letter) for letter in "abc")


def test_an_answer_that_was_begun_anew_has_nothing_of_the_old_one() -> None:
    call = ToolInputDelta(id="t", name="f", content="{}")
    whole = folded([Start(), A, call, Recovered(how="restarted"), B, FinishStep(reason="stop"), Finish()])
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "b"}
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["weir"]["how"] == "restarted", "that it was begun anew is not told"


def test_a_choice_that_was_begun_anew_may_begin_with_text() -> None:
    def second(text: str) -> TextDelta:
        return TextDelta(content=text, index=1)

    begun = [Start(), Start(index=1), A, second("x"), Recovered(how="restarted"), B, second("y"), second("z")]
    choices = folded([*begun, FinishStep(reason="stop"), FinishStep(index=1, reason="stop"), Finish()])["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["b", "yz"]


def test_an_answer_that_was_gone_on_with_is_one() -> None:
    assert content(A, Recovered(how="continued"), B) == "ab"


def test_what_was_said_before_an_instruction_stays_when_its_answer_is_begun_anew() -> None:
    assert content(A, Steered(instruction="no"), B, Recovered(how="restarted", after=3), C) == "ac"


def texts(*pieces: str, **more: Any) -> list[Any]:
    return [chunk({"content": piece}, **more) for piece in pieces]


def test_of_chunks_that_differ_in_their_text_alone_nothing_else_is_lost() -> None:
    """They are not read, so all that may stand in one between them must be seen."""
    judged = chunk({"content": "c"})
    judged["choices"][0]["logprobs"] = {"content": [{"token": "c", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
    noted, late = chunk({"content": "d", "notes": [{"x": 1}]}), texts("e", system_fingerprint="fp")
    opened = chunk({"role": "assistant", "content": ""})
    whole = relayed(opened, *texts("a", "b"), judged, noted, *late, *texts("f", 'g"\n', "é"), chunk(finish="stop"))
    choice = whole["choices"][0]
    assert choice["message"]["content"] == 'abcdefg"\né'
    assert choice["message"]["notes"] == [{"x": 1}]
    assert [one["token"] for one in choice["logprobs"]["content"]] == ["c"]
    assert whole["system_fingerprint"] == "fp", "a field that only a later chunk had is lost"


def test_the_text_of_several_choices_is_kept_apart() -> None:
    two = [chunk({"role": "assistant", "content": ""}, index=index) for index in (0, 1)]
    for a, b in zip("abc", "xyz", strict=True):
        two += [chunk({"content": a}, index=0), chunk({"content": b}, index=1)]
    choices = relayed(*two, chunk(finish="stop"), chunk(index=1, finish="stop"))["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["abc", "xyz"]


def test_what_pads_a_chunk_is_no_part_of_an_answer() -> None:
    pads = [one for piece in "abc" for one in texts(piece, obfuscation=piece * 3)]
    whole = relayed(*pads, chunk(finish="stop", obfuscation="x"))
    assert whole["choices"][0]["message"]["content"] == "abc"
    assert "obfuscation" not in whole, "a completion is padded like a chunk"


def test_text_that_waits_for_the_rest_of_its_chunk_is_not_overtaken() -> None:
    """As mode `priority` may have it: the text of a chunk leaves, its thought waits, and more text comes."""
    opened = read(chunk({"role": "assistant"}), *texts("a", "b"), chunk({"content": "c", "reasoning_content": "t"}))
    thought, text = opened[-2:]
    more = read(chunk({"role": "assistant"}), *texts("x", "d", "e"))[-2:]
    assert content(*opened[1:-2], text, *more, thought) == "abcde"


def test_text_is_added_up_unread_also_where_it_has_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [*read(chunk({"role": "assistant"}), *[chunk({"content": f"{at}"}) for at in range(50)]), Finish()]
    fold, whole = Fold(ChunkEncoder(Heading("r1", "asked", ["asked"]))), list[Any]()
    add = fold._add

    def noted(it: dict[str, Any]) -> None:
        whole.append(it)
        add(it)

    monkeypatch.setattr(fold, "_add", noted)
    for event in events:
        event.source = "main"  # as `Stream.paced` gives it to every event of a single source
        fold.add(event)
    assert len(whole) < 5
    assert fold.completion()["choices"][0]["message"]["content"] == "".join(map(str, range(50)))


def test_pieces_of_a_call_without_a_number_that_repeat_its_id_are_one_call() -> None:
    first = {"id": "A", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}
    more = {"id": "A", "type": "function", "function": {"arguments": ":1}"}}
    said = message(chunk({"tool_calls": [first]}), chunk({"tool_calls": [more]}))
    assert [call["function"]["arguments"] for call in said["tool_calls"]] == ['{"a":1}']


@pytest.mark.anyio
async def test_a_call_has_one_number_where_a_mode_takes_a_chunk_of_it_apart() -> None:
    def call(**more: object) -> dict[str, object]:
        return {"index": 0, **more}

    first = call(id="A", type="function", function={"name": "f", "arguments": "{}"})
    second = call(id="B", type="function", function={"name": "g", "arguments": ""})
    chunks = [chunk({"content": "x "}), chunk({"tool_calls": [first]})]
    chunks.append(chunk({"content": "and ", "tool_calls": [second]}))
    chunks.append(chunk({"tool_calls": [call(function={"arguments": "[1]"})]}))

    async def events() -> AsyncGenerator[Event, None]:
        for event in [*read(*chunks, chunk(finish="tool_calls")), Finish()]:
            yield event

    async with Merge({"a": events()}) as merge:
        shaped = [event async for event in Chunked().generate(merge)]
    calls = folded(shaped)["choices"][0]["message"]["tool_calls"]
    assert [it["function"].get("arguments") for it in calls] == ["{}", "[1]"]
