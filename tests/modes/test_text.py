"""Text that is held: in runs that do not mix, with what stood beside it."""

from proxy.events import Finish, ReasoningDelta, TextDelta
from proxy.modes.text import Held, Run
from proxy.testing.mode_scripts import of_a_chunk, token


def text(content: str, source: str = "a", index: int = 0) -> TextDelta:
    return TextDelta(content=content, source=source, index=index)


def held(*events: TextDelta) -> Held[Run]:
    runs = Held(Run)
    for event in events:
        runs.run_of(event).add(event)
    return runs


def test_a_run_lets_go_of_all_it_holds_once() -> None:
    run = Run("a", 2)
    assert not run
    for word in ("Hel", "lo"):
        run.add(text(word))
    assert run
    assert [*run.rest()] == [TextDelta(content="Hello", source="a", index=2)]
    assert [*run.rest()] == []
    assert not run


def test_runs_do_not_mix() -> None:
    runs = held(text("a"), text("b", index=1), text("c", "b"), text("d"), text("e", index=1))
    assert [(run.source, run.index, run.text) for run in runs] == [("a", 0, "ad"), ("a", 1, "be"), ("b", 0, "c")]


def test_an_event_lets_go_of_its_own_source() -> None:
    runs = held(text("a"), text("b", index=1), text("c", "b"))
    gone = runs.let_go(ReasoningDelta(content="hm", source="a"))
    assert [piece.content for piece in gone] == ["a", "b"], "all choices of the source, and no other source"
    assert [run.text for run in runs] == ["c"]


def test_an_end_lets_go_of_everything() -> None:
    runs = held(text("a"), text("c", "b"))
    assert [piece.content for piece in runs.let_go(Finish())] == ["a", "c"]
    assert [*runs] == []


def test_what_stood_beside_the_text_leaves_with_the_next_piece() -> None:
    run = Run("a", 0)
    for word in ("Hel", "lo"):
        run.add(*_text(token(word)))
    run.add(*_text(of_a_chunk(TextDelta(content="!"), delta={"annotations": [1]}, safe=True)))
    one, two = run.piece("H"), run.piece("ello!")
    tokens = [{"token": word, "logprob": -0.5} for word in ("Hel", "lo")]
    assert one.choice == {"logprobs": {"content": tokens}, "safe": True, "delta": {"annotations": [1]}}
    assert two.choice is None
    assert (one.raw, one.parts) == (None, 1)


def test_what_came_with_an_event_is_kept_and_left_alone() -> None:
    run, event = Run("a", 0), TextDelta(content="a", choice={"logprobs": {"content": [1]}})
    run.add(event)
    run.add(TextDelta(content="b", choice={"logprobs": {"content": [2]}}))
    assert run.piece("ab").choice == {"logprobs": {"content": [1, 2]}}
    assert event.choice == {"logprobs": {"content": [1]}}, "an event that came in was changed"


def test_what_stood_beside_nothing_is_not_lost() -> None:
    run = Run("a", 0)
    run.add(TextDelta(content="", choice={"logprobs": {"content": [1]}}))
    assert run
    assert [(piece.content, piece.choice) for piece in run.rest()] == [("", {"logprobs": {"content": [1]}})]


def _text(events: object) -> list[TextDelta]:
    assert isinstance(events, tuple)
    return [event for event in events if isinstance(event, TextDelta)]
