"""What a log says was answered so far."""

from proxy.durable.transcript import Transcript
from proxy.events import Event, FinishStep, Recovered, Start, Steered, TextDelta, ToolInputDelta
from proxy.record import written

A, B = TextDelta(content="a"), TextDelta(content="b")


def transcript(*events: Event) -> Transcript:
    it = Transcript()
    for seq, event in enumerate(events, start=1):
        event.seq = seq
        it.add(event)
    return it


def test_a_text_adds_up() -> None:
    it = transcript(Start(), A, B)
    assert (it.begun, it.said.text(), it.said.is_text, it.told, it.asked, it.recovered) == (
        {0},
        "ab",
        True,
        [],
        0,
        False,
    )


def test_every_choice_that_has_begun_is_known() -> None:
    it = transcript(Start(), Start(index=1), A, TextDelta(content="b", index=1))
    assert it.begun == {0, 1}
    assert not it.said.is_text, "an answer of several choices cannot be gone on with"


def test_a_tool_call_is_no_text() -> None:
    assert not transcript(Start(), A, ToolInputDelta(id="t", name="f")).said.is_text


def test_what_was_steered_is_asked_again_with_what_was_said_until_then() -> None:
    it = transcript(
        Start(), A, Steered(instruction="shorter"), Steered(instruction="in French"), B, FinishStep(reason="stop")
    )
    assert it.told == [
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "shorter"},
        {"role": "user", "content": "in French"},
    ]
    assert (it.asked, it.said.text()) == (4, "b")


def test_what_was_begun_anew_forgets_what_was_said() -> None:
    it = transcript(Start(), A, Recovered(how="restarted"), B)
    assert (it.said.text(), it.recovered) == ("b", True)
    went_on = transcript(Start(), A, Recovered(how="continued"), B)
    assert (went_on.said.text(), went_on.recovered) == ("ab", True)


def test_it_is_complete_when_every_choice_has_come_to_its_end() -> None:
    one, other = FinishStep(reason="stop"), FinishStep(reason="stop", index=1)
    assert not transcript().is_complete()
    assert not transcript(Start(), A).is_complete()
    assert transcript(Start(), A, one).is_complete()
    assert not transcript(Start(), Start(index=1), A, one).is_complete()
    assert transcript(Start(), Start(index=1), A, one, other).is_complete()
    assert not transcript(Start(), A, one, Steered(instruction="more")).is_complete()
    assert not transcript(Start(), A, Recovered(how="restarted"), B).is_complete()


def test_it_knows_what_its_first_chunk_said_of_all_and_how_much_there_is() -> None:
    it = transcript(Start(chunk={"system_fingerprint": "fp"}), A, Recovered(how="restarted"), Start(chunk={"x": 1}), B)
    assert it.facts == {"system_fingerprint": "fp"}
    marker = b'{"type":"data-recovery","how":"restarted"}'
    each = map(written, [Start(chunk={"system_fingerprint": "fp"}), A, B, Start(chunk={"x": 1})])
    assert it.size == sum(map(len, each)) + len(marker)
