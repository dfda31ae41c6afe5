"""A log read in order: whatever stands in it, a session comes out."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from proxy.session.conversation import AnswerRecord, Feedback
from proxy.state.session_log import LOST, Answered, Asked, bytes_of, entry, read_log, what_was_told

USER = {"role": "user", "content": "hi"}


def log(*records: Any) -> list[tuple[str, dict[str, str]]]:
    """As Redis gives it back; entry number n is of n seconds after 1970."""
    written = (it if isinstance(it, dict) else entry(it) for it in records)
    found = [{kind: value.decode() for kind, value in fields.items()} for fields in written]
    return [(f"{at}000-0", fields) for at, fields in enumerate(found, 1)]


def ended(turn: int, end: Any = "finish", text: str = "ok") -> Answered:
    said = {"role": "assistant", "content": text}
    return Answered(f"{turn}000-0", [AnswerRecord(provider="p", end=end, message=said)])


def states(*records: Any, now: float = 100.0) -> list[str]:
    session = read_log("s", log(*records), None, now)
    return [turn.state for turn in session.turns] if session else []


def test_a_log_that_is_not_there_is_no_session() -> None:
    assert read_log("s", [], None, 0.0) is None


def test_times_are_the_stores() -> None:
    session = read_log("s", log(Asked("x", [USER]), ended(1), Feedback(stream_id="x")), None, 100.0)
    assert session is not None
    assert (session.id, session.created, session.updated) == ("s", 1.0, 3.0)
    assert (session.turns[0].began, session.turns[0].ended, session.feedback[0].at) == (1.0, 2.0, 3.0)


def test_an_end_is_that_of_its_turn() -> None:
    assert states(Asked("a", [USER]), Asked("b", [USER]), Asked("c", [USER]), ended(2)) == [
        "running",
        "finished",
        "running",
    ]


def test_what_is_finished_stays_so() -> None:
    assert states(Asked("a", [USER]), ended(1, "error"), ended(1)) == ["finished"]
    assert states(Asked("a", [USER]), ended(1), ended(1, "error")) == ["finished"]
    assert states(Asked("a", [USER]), Answered("1000-0", [])) == ["broken"]


def test_what_runs_too_long_is_lost() -> None:
    assert states(Asked("a", [USER]), now=LOST) == ["running"]
    assert states(Asked("a", [USER]), now=LOST + 2) == ["broken"]


def test_a_turn_takes_the_place_of_the_one_before() -> None:
    session = read_log("s", log(Asked("a", []), Asked("b", []), Asked("c", [], replaces=True), ended(2)), None, 0.0)
    assert session is not None
    assert [turn.stream_id for turn in session.turns] == ["a", "c"]
    assert states(Asked("a", [], replaces=True)) == ["running"], "there was none before"


RESULTS = {"role": "tool", "tool_call_id": "c", "content": "42"}


def test_results_that_are_sent_once_more_take_the_place_of_their_own_turn() -> None:
    before = [Asked("a", [USER]), ended(1)]
    assert streams(*before, Asked("b", [RESULTS]), ended(3), Asked("c", [RESULTS], replaces=True)) == ["a", "c"]
    assert streams(*before, Asked("b", [RESULTS]), Asked("b", [RESULTS], replaces=True)) == ["a", "b"], "taken over"


def test_a_steered_stream_that_is_taken_over_takes_the_place_of_all_its_turns() -> None:
    """What it asks holds all of them."""
    steered = {"role": "user", "content": "shorter"}
    told = [USER, {"role": "assistant", "content": "ok"}, steered]
    again = Asked("a", told, replaces=True)
    assert streams(Asked("a", [USER]), ended(1, "abort"), Asked("a", [steered]), again) == ["a"]


def streams(*records: Any) -> list[str]:
    session = read_log("s", log(*records), None, 0.0)
    return [turn.stream_id for turn in session.turns] if session else []


def test_a_turn_takes_no_place_of_an_answer_to_something_else() -> None:
    """What is asked once more may not have come here the first time."""
    other = {"role": "user", "content": "and you?"}
    assert streams(Asked("a", [USER]), ended(1), Asked("b", [other], replaces=True)) == ["a", "b"]


def test_a_turn_takes_the_place_of_all_that_an_answer_came_to() -> None:
    """Results of the client's tools, and instructions, are turns too."""
    before, result = Asked("a", [USER]), {"role": "tool", "tool_call_id": "c", "content": "12"}
    again = Asked("z", [USER], replaces=True)
    assert streams(before, Asked("b", [USER]), Asked("c", [result]), Asked("d", [result]), again) == ["a", "z"]
    assert streams(before, Asked("b", [USER]), Asked("b", [{"role": "user", "content": "go"}]), again) == ["a", "z"]
    assert streams(Asked("c", [result]), again) == ["c", "z"], "what it went on from is kept no longer"


def test_what_a_newer_weir_wrote_is_passed_over() -> None:
    odd = [{"sung": b"{}"}, {"asked": b"{"}, {"answered": b'{"turn": 5}'}, {"": b""}]
    assert states(Asked("a", [USER]), *odd, ended(1)) == ["finished"]
    more = {"asked": b'{"stream_id": "x", "messages": [], "mood": "sunny"}'}
    assert states(more) == ["running"]


def test_an_end_without_its_turn_is_passed_over() -> None:
    assert states(ended(7), Asked("a", [USER])) == ["running"]


def test_every_kind_is_told_apart() -> None:
    for record in (Asked("a", [USER]), ended(1), Feedback(stream_id="a")):
        (kind,) = entry(record)
        assert msgspec.json.decode(entry(record)[kind], type=type(record)) == record


def test_bytes_are_those_in_the_store() -> None:
    records: list[Any] = [Asked("a", [{"role": "user", "content": "漢字"}]), ended(1)]
    assert bytes_of(log(*records)) == sum(len(value) for it in records for value in entry(it).values())


def told(*records: Any, before: str | None = None) -> list[str]:
    return [message["content"] for message in msgspec.json.decode(what_was_told(log(*records), before))]


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def test_what_was_told_is_told_on() -> None:
    asked = Asked("a", [system("rules"), USER])
    assert told(asked, ended(1), Asked("b", [system("rules"), USER])) == ["rules"]
    assert told(asked) == ["rules"], "even if the answer is further on in the log"
    before = what_was_told(log(asked), None).decode()
    assert told(Asked("b", [system("more"), USER]), before=before) == ["rules", "more"]
    assert told(Feedback(stream_id="x"), before=before) == ["rules"]
    assert told(Asked("b", [USER])) == []


records = st.one_of(
    st.builds(Asked, st.text(max_size=3), st.just([USER]), st.booleans()),
    st.builds(ended, st.integers(1, 20), st.sampled_from(["finish", "error", "abort"])),
    st.builds(Feedback, stream_id=st.text(max_size=3)),
    st.builds(
        lambda kind, value: {kind: value.hex().encode()},
        st.sampled_from(["asked", "answered", "rated", "x"]),
        st.binary(max_size=5),
    ),
)


@given(st.lists(records, min_size=1, max_size=20))
def test_any_log_is_a_session(written: list[Any]) -> None:
    session = read_log("s", log(*written), None, 50.0)
    assert session is not None
    ids = [turn.id for turn in session.turns]
    assert ids == sorted(ids, key=lambda it: int(it.partition("-")[0]))
    assert len(session.feedback) == sum(isinstance(it, Feedback) for it in written)
