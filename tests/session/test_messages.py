"""Which messages belong together: calls with their results, and instructions that are said once."""

from typing import Any

import pytest

from proxy.session.messages import (
    MOST_INSTRUCTIONS,
    SAID_BY,
    Message,
    bounded,
    calls_of,
    instructions,
    paired,
    results_in,
    told_to,
    up_to_the_call,
)


def user(text: str = "hi") -> Message:
    return {"role": "user", "content": text}


def says(text: str = "hello") -> Message:
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def calls(*ids: str, text: str | None = None) -> Message:
    made = [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id in ids]
    return {"role": "assistant", "content": text, "tool_calls": made}


def result(id: str, text: str = "42") -> Message:
    return {"role": "tool", "tool_call_id": id, "content": text}


def test_whole_calls_stay_as_they_are() -> None:
    old = [system("s"), user(), calls("a", "b"), result("b"), result("a"), says(), user(), calls("a"), result("a")]
    assert paired(old, [says()]) == old


def test_a_result_that_is_only_coming_counts() -> None:
    old = [user(), calls("a", "b"), result("a")]
    assert paired(old, [result("b")]) == old
    assert paired(old, [system("changed"), result("b")]) == old


def test_a_call_that_nobody_answered_goes() -> None:
    assert paired([user(), calls("a")], [user()]) == [user()]
    assert paired([user(), calls("a", text="let me see")], [user()]) == [user(), says("let me see")]
    assert paired([user(), calls("a", "b"), result("b")], [user()]) == [user(), calls("b"), result("b")]
    assert paired([user(), calls("a"), user(), result("a")], []) == [user(), user()], "too late"


def test_a_result_without_its_call_goes() -> None:
    assert paired([result("a"), user()], []) == [user()]
    assert paired([calls("a"), result("a"), says(), result("a")], []) == [calls("a"), result("a"), says()]


def test_instructions_may_stand_between_a_call_and_its_result() -> None:
    old = [user(), calls("a"), system("s"), result("a")]
    assert paired(old, []) == old


def test_nothing_of_the_callers_is_changed() -> None:
    call = calls("a", "b")
    paired([call, result("a")], [])
    assert call == calls("a", "b")


@pytest.mark.parametrize("odd", [None, 5, "x", {}, [], [5], [{"id": []}], [{"id": None}], [{}]])
def test_whatever_a_client_sends_for_calls(odd: Any) -> None:
    message = {"role": "assistant", "content": "x", "tool_calls": odd}
    assert calls_of(message) <= {""}
    assert paired([message], [user()])[0]["content"] == "x"
    assert results_in([{"role": "tool", "tool_call_id": odd}]) == {odd if odd == "x" else ""}


def test_calls_without_ids_keep_their_results() -> None:
    call: Message = {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}
    old = [call, {"role": "tool", "content": "42"}]
    assert paired(old, [user()]) == old


def test_results_go_on_from_their_call() -> None:
    old = [user(), calls("a"), result("a", "wrong"), says("so"), user("next"), says()]
    assert up_to_the_call(old, [result("a")]) == old[:2]
    assert up_to_the_call(old, [user()]) == old
    assert up_to_the_call(old, [result("unknown")]) == old


def test_results_that_came_one_by_one_stay() -> None:
    old = [user(), calls("a", "b"), result("a"), says("and b?")]
    assert up_to_the_call(old, [result("b")]) == old[:3]


def test_of_calls_with_the_same_id_the_last_one_is_meant() -> None:
    old = [user(), calls("a"), result("a"), says(), user(), calls("a")]
    assert up_to_the_call(old, [result("a")]) == old


def said(*messages: Message) -> list[Any]:
    return [messages[at]["content"] for at in instructions(messages)]


def test_instructions_that_are_in_force_are_not_repeated() -> None:
    assert said(system("a"), user(), says(), system("a"), user()) == ["a"]
    assert said(system("a"), system("b"), user(), system("a"), system("b"), user()) == ["a", "b"]
    assert said(system("a"), system("a"), user()) == ["a"]
    assert said({"role": "developer", "content": "a"}, user(), system("a")) == ["a", "a"], "not the same message"


def test_what_stays_the_same_is_not_repeated_with_what_changes() -> None:
    turns = [message for hour in "123" for message in (system("rules"), system(hour), user())]
    assert said(*turns) == ["rules", "1", "2", "3"]


def test_going_back_to_what_was_in_force_is_said() -> None:
    assert said(system("a"), user(), system("b"), user(), system("a"), user()) == ["a", "b", "a"]


def test_the_first_and_the_newest_instructions_are_kept() -> None:
    assert bounded([3, 5]) == [3, 5]
    many = list(range(100))
    assert bounded(many) == [0, *many[-MOST_INSTRUCTIONS + 1 :]]


def test_what_a_provider_said_beside_its_calls_is_told_to_nobody_else() -> None:
    plain = calls("a", text="I look.")
    signed = {**plain["tool_calls"][0], "extra_content": {"signature": "s"}}
    whole = {**plain, "tool_calls": [signed], "reasoning_content": "hm"}
    told = [user(), {**whole, "said_by": "one"}, result("a")]
    assert told_to("one", told) == [user(), whole, result("a")]
    assert told_to("two", told) == [user(), plain, result("a")]
    assert told_to("two", [{**says(), "said_by": "one"}]) == [says()], "its calls were left out"
    for odd in ({"tool_calls": 5}, {"tool_calls": [5, {}, {"function": 5}]}):
        assert told_to("two", [{**user(), **odd, "said_by": 5}])[0]["role"] == "user", "a client may send anything"


def test_thoughts_go_with_the_calls_that_nobody_answered() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = {"role": "assistant", "content": "I look", "tool_calls": [call], "reasoning_content": "hm", SAID_BY: "a"}
    user = {"role": "user", "content": "hi"}
    assert paired([user, said], [user]) == [user, {"role": "assistant", "content": "I look"}]
