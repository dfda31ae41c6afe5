"""The AI SDK's parts, one by one. What its own chat engines make of them: `tests/clients/test_ai_sdk.py`."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from proxy.events import (
    Event,
    Finish,
    FinishStep,
    ReasoningDelta,
    Recovered,
    Start,
    Steered,
    TextDelta,
    ToolInput,
    ToolInputDelta,
    ToolOutput,
    Usage,
    Vendor,
)
from proxy.testing import chunk, says
from proxy.wire.ui import UIEncoder
from tests.wire.test_encoder import data_of

# The fields that a part may have in ai@5.0.0, which refuses any other (`uiMessageChunkSchema` there).
ALLOWED = {
    "start": {"messageId", "messageMetadata"},
    "start-step": set[str](),
    "text-start": {"id", "providerMetadata"},
    "text-delta": {"id", "delta", "providerMetadata"},
    "text-end": {"id", "providerMetadata"},
    "reasoning-start": {"id", "providerMetadata"},
    "reasoning-delta": {"id", "delta", "providerMetadata"},
    "reasoning-end": {"id", "providerMetadata"},
    "tool-input-start": {"toolCallId", "toolName", "providerExecuted", "dynamic"},
    "tool-input-delta": {"toolCallId", "inputTextDelta"},
    "tool-input-available": {"toolCallId", "toolName", "input", "providerExecuted", "providerMetadata", "dynamic"},
    "tool-output-available": {"toolCallId", "output", "providerExecuted", "dynamic"},
    "tool-output-error": {"toolCallId", "errorText", "providerExecuted", "dynamic"},
    "finish-step": set[str](),
    "finish": {"messageMetadata"},
    "error": {"errorText"},
    "abort": set[str](),
}


def parts(events: Sequence[Event], *, several: bool = False, version: int = 5) -> list[Any]:
    encoder = UIEncoder("m1", several=several, version=version)
    found = data_of(b"".join(map(encoder.encode, events)))
    for part in found:
        if part != "[DONE]" and (version < 7 or part["type"] != "reset-step"):
            allowed = ALLOWED.get(part["type"], {"data", "id", "transient"})
            assert set(part) <= {"type", *allowed}, f"the first clients refuse {part}"
    return found


def kinds(events: Sequence[Event], *, several: bool = False, version: int = 5) -> list[str]:
    found = parts(events, several=several, version=version)
    return [part if part == "[DONE]" else part["type"] for part in found]


def test_a_text() -> None:
    assert parts(says("Hel", "lo", usage=(3, 2))) == [
        {"type": "start", "messageId": "m1"},
        {"type": "start-step"},
        {"type": "text-start", "id": "0-0"},
        {"type": "text-delta", "id": "0-0", "delta": "Hel"},
        {"type": "text-delta", "id": "0-0", "delta": "lo"},
        {"type": "text-end", "id": "0-0"},
        {"type": "finish-step"},
        {
            "type": "finish",
            "messageMetadata": {
                "finishReason": "stop",
                "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5},
            },
        },
        "[DONE]",
    ]


def test_the_answer_names_its_format() -> None:
    assert UIEncoder("m1").content_headers == {"x-vercel-ai-ui-message-stream": "v1"}


def test_thought_and_text_are_never_open_at_once() -> None:
    turns = [ReasoningDelta(content="hm"), TextDelta(content="a"), ReasoningDelta(content="hm"), TextDelta(content="b")]
    said = parts([Start(), *turns, Finish()])[2:-3]
    assert [(part["type"], part["id"]) for part in said] == [
        (f"{kind}-{what}", f"0-{number}")
        for number, kind in enumerate(["reasoning", "text", "reasoning", "text"])
        for what in ("start", "delta", "end")
    ]


def test_a_signature_closes_its_thought() -> None:
    proof = {"thought_signatures": ["s"]}
    said = parts([Start(), ReasoningDelta(content="", extra=proof), TextDelta(content="a")])
    assert said[2:4] == [
        {"type": "reasoning-start", "id": "0-0"},
        {"type": "reasoning-end", "id": "0-0", "providerMetadata": {"weir": {"extra": proof}}},
    ]


@pytest.mark.parametrize(
    ("arguments", "given"),
    [(['{"x":', "1}"], {"x": 1}), ([""], {}), ([" "], {}), (["[1]"], [1]), (['{"x"'], None), (["{}{}"], None)],
)
def test_a_tool_is_run_when_its_arguments_are_whole(arguments: list[str], given: Any) -> None:
    pieces = [ToolInputDelta(content=piece) for piece in arguments]
    pieces[0].id, pieces[0].name = "c", "f"
    *_, last = parts([Start(), *pieces, FinishStep(reason="tool_calls")])
    if given is None:
        assert (last["type"], last["toolCallId"]) == ("tool-output-error", "c")
        assert "not valid JSON" in last["errorText"]
    else:
        assert last == {"type": "tool-input-available", "toolCallId": "c", "toolName": "f", "input": given}


def test_a_tool_of_a_choice_that_never_ended_is_run_at_the_end() -> None:
    assert "tool-input-available" in kinds([Start(), ToolInputDelta(id="c", name="f"), Finish()])


def test_two_calls_never_share_an_id() -> None:
    calls = [ToolInputDelta(id="call_0", name="f", source=source) for source in "ab"]
    nameless = [ToolInputDelta(source=source, slot=1) for source in "ab"]
    begun = [part for part in parts([*calls, *nameless], several=True) if part["type"] == "tool-input-start"]
    assert len({part["toolCallId"] for part in begun}) == 4
    assert begun[0]["toolCallId"] == "call_0", "the vendor's id is kept where it can be"


def test_a_call_never_has_an_id_of_the_message_that_the_answer_goes_on_with() -> None:
    encoder = UIEncoder("m1", calls=["call_0", "call-0-0"])
    events = [ToolInputDelta(id="call_0", name="f"), ToolInputDelta(slot=1, name="f"), ToolInputDelta(slot=2, id="c")]
    begun = [part for part in data_of(b"".join(map(encoder.encode, events))) if part["type"] == "tool-input-start"]
    ids = {part["toolCallId"] for part in begun}
    assert len(ids) == 3
    assert "c" in ids
    assert not ids & {"call_0", "call-0-0"}


def test_what_an_agents_tools_said_is_answered_in_a_step_of_its_own() -> None:
    run: list[Event] = [Start(), ToolInput(id="c", name="f"), ToolInput(id="d", name="f"), ToolOutput(id="c", output=1)]
    waiting = [*run, TextDelta(content="one more ")]
    assert kinds(waiting).count("start-step") == 1, "a step began while a tool still ran"
    done = [*run, ToolOutput(id="d", output=2), TextDelta(content="a"), TextDelta(content="b"), Finish()]
    assert kinds(done).count("start-step") == kinds(done).count("finish-step") == 2
    beside = [TextDelta(content="b", index=1), *done]
    assert kinds(beside).count("start-step") == 1, "a step ended under another choice's open text"


def test_an_answer_of_a_tool_that_was_never_called_is_left_out() -> None:
    assert kinds([Start(), ToolOutput(id="c", output=1)]) == ["start", "start-step"]


def test_a_tool_that_was_not_called_to_the_end_is_not_run_when_the_answer_is_steered() -> None:
    steered = [Start(), ToolInputDelta(id="c", name="f", content="{"), Steered(instruction="stop"), *says("ok")[1:]]
    assert kinds(steered)[2:8] == [
        "tool-input-start",
        "tool-input-delta",
        "tool-output-error",
        "data-steer",
        "finish-step",
        "start-step",
    ]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("stop", "stop"),
        ("tool_calls", "tool-calls"),
        ("function_call", "tool-calls"),
        ("content_filter", "content-filter"),
        ("length", "length"),
        ("eos", "other"),
    ],
)
def test_why_it_ended_in_the_sdks_words(reason: str, told: str) -> None:
    (finish,) = [part for part in parts([Start(), FinishStep(reason=reason), Finish()]) if part != "[DONE]"][-1:]
    assert finish["messageMetadata"] == {"finishReason": told}


def test_what_has_no_part_is_not_written() -> None:
    assert kinds([Usage(input_tokens=1), Vendor(raw=b'{"x":1}'), Vendor(answer=True)]) == []


def test_a_part_of_an_answer_that_has_no_event_reaches_those_who_look_for_it() -> None:
    raw = msgspec.json.encode(chunk({"refusal": "No."}))
    assert parts([Start(), Vendor(raw=raw, answer=True)])[-1] == {
        "type": "data-vendor",
        "data": {"refusal": "No."},
        "transient": True,
    }


A, B = TextDelta(content="a"), TextDelta(content="b")
RESTARTED = Recovered(how="restarted", after=0, reason="it died")


def test_what_goes_on_is_the_same_text_with_a_mark_in_it() -> None:
    said = parts([Start(), A, Recovered(how="continued", reason="it died"), B])
    assert [part.get("delta") for part in said[2:]] == [None, "a", None, "b"]
    assert said[4] == {"type": "data-recovery", "data": {"how": "continued", "after": 0, "reason": "it died"}}
    assert said[5]["id"] == said[3]["id"]


def test_a_new_answer_is_a_new_step() -> None:
    assert kinds([Start(), A, RESTARTED, B])[4:] == [
        "text-end",
        "data-recovery",
        "finish-step",
        "start-step",
        "text-start",
        "text-delta",
    ]


def test_a_newer_sdk_takes_back_what_was_said() -> None:
    tool = ToolInputDelta(id="t", name="f", content="{")
    assert kinds([Start(), A, tool, RESTARTED, B], version=7)[2:] == [
        "text-start",
        "text-delta",
        "text-end",
        "tool-input-start",
        "tool-input-delta",
        "tool-output-error",
        "reset-step",
        "data-recovery",
        "text-start",
        "text-delta",
    ]


def test_what_the_reader_steered_away_from_is_not_taken_back() -> None:
    steered = kinds([Start(), A, Steered(instruction="no"), B, RESTARTED, B], version=7)
    assert steered[steered.index("data-steer") :] == [
        "data-steer",
        "finish-step",
        "start-step",
        "text-start",
        "text-delta",
        "text-end",
        "reset-step",
        "data-recovery",
        "text-start",
        "text-delta",
    ]


AGENT = [ToolInput(id="t", name="f"), ToolOutput(id="t", output=1)]
SECOND = TextDelta(content="b", index=1)


@pytest.mark.parametrize(
    "said",
    [[Start(), *AGENT, A], [Start(), A, Start(index=1), SECOND, Steered(instruction="no"), B]],
    ids=["an answer of two steps", "a step of two answers"],
)
def test_where_a_step_is_not_the_answer_nothing_is_taken_back(said: list[Event]) -> None:
    assert "reset-step" not in kinds([*said, RESTARTED, B], version=7)


def test_every_choice_is_begun_anew() -> None:
    said = parts([Start(), A, Start(index=1), SECOND, RESTARTED, A, SECOND, Finish()])
    assert len([part for part in said if part != "[DONE]" and part["type"] == "text-start"]) == 4
    assert len([part for part in said if part != "[DONE]" and part["type"] == "text-end"]) == 4


def test_why_a_discarded_answer_ended_is_forgotten() -> None:
    events = [Start(), A, FinishStep(reason="length"), RESTARTED, B, FinishStep(reason="stop"), Finish()]
    assert parts(events)[-2]["messageMetadata"]["finishReason"] == "stop"


def test_a_call_that_was_begun_and_failed_is_not_run() -> None:
    said = kinds([Start(), ToolInputDelta(id="t", name="f"), Recovered(how="failed", reason="it died")])
    assert said[3:] == ["tool-output-error", "data-recovery"]
