"""What a session comes to: whose it is, what the conversation goes on from, and what it cost."""

import re
from typing import Any

import pytest

from proxy.events import Usage
from proxy.session.conversation import AnswerRecord, Session, Spent, Turn, history, owner
from tests.session.test_messages import calls, result, says, system, user


def answer(message: Any = None, end: Any = "finish", **fields: Any) -> AnswerRecord:
    return AnswerRecord(provider="p", end=end, message=message, **fields)


def turn(messages: list[Any], *answers: AnswerRecord, state: Any = None) -> Turn:
    state = state or ("finished" if any(it.end == "finish" for it in answers) else "broken")
    return Turn(id="1-0", stream_id="s", state=state, began=1.0, messages=messages, answers=list(answers))


def said(*turns: Turn, instructions: list[Any] | None = None) -> list[Any]:
    return history(Session(id="s", turns=list(turns), instructions=instructions or []))


def test_an_owner_is_a_key_and_a_user_and_tells_neither() -> None:
    pairs = [(None, None), ("k", None), (None, "k"), ("k", "u"), ("ku", None), ("", "u"), ('k",u', None), ("k", "ü")]
    owners = {owner(key, user_id) for key, user_id in pairs}
    assert len(owners) == len(pairs), "two owners look the same"
    assert all(re.fullmatch("[0-9a-f]{32}", it) for it in owners)
    assert owner("k", "u") == owner("k", "u"), "the same on every replica"
    assert owner("k", "") == owner("k", None), "an empty user is no user"


def test_turns_in_order_with_their_answers() -> None:
    asked = [turn([system("s"), user("a")], answer(says("1"))), turn([user("b")], answer(says("2")))]
    assert said(*asked) == [system("s"), user("a"), says("1"), user("b"), says("2")]


def test_instructions_of_turns_that_are_gone_come_first() -> None:
    assert said(turn([user()], answer(says())), instructions=[system("s")]) == [system("s"), user(), says()]


def test_what_is_being_answered_is_no_part_yet() -> None:
    assert said(turn([user("a")], state="running"), turn([user("b")], answer(says()))) == [user("b"), says()]


def test_a_turn_that_got_no_answer_is_no_part_at_all() -> None:
    """Who got an error asks again: with the first try kept, the model would be asked twice."""
    nothing = [
        (),
        (answer(None, "error", error="502"),),
        (answer(None, "abort"), answer(None, "error")),
        (answer(says("")),),
        (answer({"role": "assistant", "content": None}),),
    ]
    for answers in nothing:
        assert said(turn([user("a")], *answers), turn([user("a")], answer(says()))) == [user("a"), says()]


def test_the_text_of_a_broken_answer_stays_and_its_calls_do_not() -> None:
    assert said(turn([user()], answer(says("Once upon"), "error"))) == [user(), says("Once upon")]
    assert said(turn([user()], answer(says("Once upon"), "abort"))) == [user(), says("Once upon")]
    half = answer(calls("a", text="let me"), "error")
    assert said(turn([user()], half)) == [user(), says("let me")]
    assert said(turn([user()], answer(calls("a"), "error"))) == []


def test_of_several_answers_the_first_whole_one_counts() -> None:
    broken, long, first, second = (says(it) for it in ("a", "a long one", "first", "second"))
    assert said(turn([user()], answer(broken, "error"), answer(first), answer(second)))[-1] == first
    assert said(turn([user()], answer(broken, "error"), answer(long, "abort")))[-1] == long
    assert said(turn([user()], answer(None), answer(second)))[-1] == second


def test_a_call_and_its_result_in_two_turns() -> None:
    first = turn([user()], answer(calls("a")))
    assert said(first, turn([result("a")], answer(says("42")))) == [user(), calls("a"), result("a"), says("42")]


def test_a_result_that_was_sent_again_is_there_once() -> None:
    first = turn([user()], answer(calls("a")))
    again = [turn([result("a")], answer(says(it))) for it in ("lost on the way", "42")]
    assert said(first, *again) == [user(), calls("a"), result("a"), says("42")]


def test_history_changes_nothing_of_the_session() -> None:
    session = Session(id="s", instructions=[system("s")], turns=[turn([user()], answer(says()))])
    history(session)
    history(session)
    assert session.instructions == [system("s")]


def test_totals() -> None:
    spent = [Spent.of(Usage(input_tokens=3, output_tokens=2, details={"x": 1})), Spent(10, 20), None]
    session = Session(id="s", turns=[turn([user()], *(answer(usage=it) for it in spent)), turn([user()])])
    assert session.totals() == {"turns": 2, "input_tokens": 13, "output_tokens": 22}
    assert spent[0] == Spent(3, 2, {"x": 1})
    assert Spent.of(None) is None


@pytest.mark.parametrize("length", [1000])
def test_a_long_conversation(length: int) -> None:
    turns = [turn([user(str(at))], answer(says())) for at in range(length)]
    assert len(said(*turns)) == 2 * length
