"""Whether what a client got is what the upstream said: nothing lost, nothing twice, one end."""

from collections.abc import Sequence

from tests.paced_upstream import Said
from tests.scenarios.returning import Block, ReturningClient

Part = list[Block]  # what was said between two markers


def judge(client: ReturningClient, answers: Sequence[Said]) -> None:
    """Raises AssertionError that says what is wrong."""
    name, blocks = f"stream {client.name} ({client.stream_id}, {client.recovery})", client.blocks
    _positions_are_without_gap(name, blocks)
    ends = [block.end for block in blocks if block.end]
    assert len(ends) == 1, f"{name} has not exactly one end: {ends}"
    assert blocks[-1].end, f"{name} goes on after its end"
    markers = [marker for block in blocks if (marker := block.marker)]
    hows = [str(marker["how"]) for marker in markers]
    parts = _parts(blocks)
    _are_what_was_said(name, parts, hows, answers)
    if ends == ["finish"]:
        assert "failed" not in hows, f"{name} failed, and ends as if it had not"
        last = _said(parts[-1], answers)
        assert last is not None, f"{name} ends well, and nothing was said"
        assert last.complete, f"{name} ends before its answer does"
        assert _text(parts[-1]) == last.text, f"{name} lacks the end of its answer"
    else:
        assert ends == ["replica_lost"], f"{name} ends as {ends}, though only its replica died"
        assert hows[-1] == "failed", f"{name} ends without a marker that says so"
    wanted = {"fail": "failed", "restart": "restarted", "continue": "continued"}[client.recovery]
    if client.recovery == "continue" and not _text(parts[0]):
        wanted = "failed"  # there is nothing to go on with
    if hows and blocks[-1].position.epoch == 2:
        assert hows == [wanted], f"{name} was recovered otherwise than it asked: {hows}"
    elif hows:  # whoever took it over died, too, perhaps before it said anything
        assert hows in ([wanted], [wanted, "failed"], ["failed"]), f"{name} was recovered more than once: {hows}"
    assert not hows or blocks[-1].position.epoch > 1, f"{name} was recovered, and nobody took it over"


def _positions_are_without_gap(name: str, blocks: Sequence[Block]) -> None:
    places = [block.position for block in blocks]
    assert [place.seq for place in places] == list(range(1, len(places) + 1)), f"{name} has a gap: {places}"
    epochs = [place.epoch for place in places]
    assert epochs == sorted(epochs), f"{name} fell back into an earlier epoch: {epochs}"
    nonces = {(place.epoch, place.nonce) for place in places}
    assert len(nonces) == len(set(epochs)), f"{name} was told of two histories: {nonces}"


def _parts(blocks: Sequence[Block]) -> list[Part]:
    parts: list[Part] = [[]]
    for block in blocks:
        if block.marker:
            parts.append([])
        parts[-1].append(block)
    return parts


def _text(part: Part) -> str:
    return "".join(block.text for block in part)


def _said(part: Part, answers: Sequence[Said]) -> Said | None:
    """The answer that it is a part of: every token names its own."""
    text = _text(part)
    return answers[int(text.partition(":")[0].rpartition(".")[2]) - 1] if text else None


def _are_what_was_said(name: str, parts: Sequence[Part], hows: Sequence[str], answers: Sequence[Said]) -> None:
    numbers, so_far = [], ""
    for part, how in zip(parts, ["", *hows], strict=True):
        text, said = _text(part), _said(part, answers)
        if how == "failed":
            assert not text, f"{name} goes on after it failed: {text}"
        if said is None:
            continue
        numbers.append(said.number)
        assert said.text.startswith(text), f"{name} was told {text!r} where {said.text!r} was said"
        if how == "continued":
            assert said.prefill == so_far, f"{name} was asked to go on from {said.prefill!r}, not from {so_far!r}"
        else:
            assert not said.prefill, f"{name} was begun anew with {said.prefill!r}"
        so_far += text
    assert numbers == sorted(set(numbers)), f"{name} was told an answer twice, or out of order: {numbers}"
