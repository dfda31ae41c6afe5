"""The entries of a session's log, and what they come to when they are read in order."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from proxy.adapter import Messages
from proxy.session.conversation import AnswerRecord, Feedback, Session, Turn
from proxy.session.messages import bounded, instructions, results_in

LOST = 3600.0  # seconds after which a turn that has not ended is taken for one whose replica died

Entry = tuple[str, Mapping[str, str]]  # an id, which begins with the store's time in milliseconds, and {kind: JSON}


class Asked(msgspec.Struct, omit_defaults=True):
    """A turn begins; its id is that of the entry. `replaces`: it takes the place of the last answer to its messages."""

    stream_id: str
    messages: Messages
    replaces: bool = False


class Answered(msgspec.Struct):
    """A turn has ended. It may be told twice: by a replica that was not sure, or by one that took another's place."""

    turn: str
    answers: list[AnswerRecord]


KINDS: dict[str, type[Asked | Answered | Feedback]] = {"asked": Asked, "answered": Answered, "rated": Feedback}


def entry(record: Asked | Answered | Feedback) -> dict[str, bytes]:
    """What is written down for `record`."""
    kind = next(kind for kind, known in KINDS.items() if type(record) is known)
    return {kind: msgspec.json.encode(record)}


def read_log(session_id: str, entries: Sequence[Entry], told: str | None, now: float) -> Session | None:
    """The session that a log holds; None for a log that is not there.

    `told`: see `what_was_told`. What cannot be read, a newer Weir's perhaps, is passed over, and so is what belongs to
    a turn that is kept no longer.
    """
    if not entries:
        return None
    session = Session(id=session_id, created=_time_of(entries[0]), updated=_time_of(entries[-1]))
    if told is not None:
        session.instructions = msgspec.json.decode(told, type=list[dict[str, Any]])
    turns: dict[str, Turn] = {}
    for each in entries:
        id, at, record = each[0], _time_of(each), _record(each)
        if isinstance(record, Asked):
            if record.replaces:
                for gone in replaced([*turns.values()], record):
                    del turns[gone.id]
            state: Literal["broken", "running"] = "broken" if now - at > LOST else "running"
            turns[id] = Turn(id=id, stream_id=record.stream_id, state=state, began=at, messages=record.messages)
        elif isinstance(record, Answered):
            if turn := turns.get(record.turn):
                _end(turn, record.answers, at)
        elif record is not None:
            session.feedback.append(msgspec.structs.replace(record, at=at))
    session.turns = list(turns.values())
    return session


def what_was_told(entries: Sequence[Entry], told: str | None) -> bytes:
    """As JSON, the system messages of `entries`, which are about to be dropped, after those dropped before (`told`)."""
    session = read_log("", entries, told, now=0.0) or Session(id="")
    said = [*session.instructions, *(message for turn in session.turns for message in turn.messages)]
    return msgspec.json.encode([said[at] for at in bounded(instructions(said))])


def bytes_of(entries: Sequence[Entry]) -> int:
    return sum(len(value.encode()) for _, fields in entries for value in fields.values())


def _record(each: Entry) -> Asked | Answered | Feedback | None:
    ((kind, value),) = each[1].items()
    with contextlib.suppress(msgspec.MsgspecError, KeyError):
        return msgspec.json.decode(value, type=KINDS[kind])
    return None


def replaced(turns: Sequence[Turn], asked: Asked) -> Sequence[Turn]:
    """The last answer, with the results and instructions it went on from; nothing, if it answered other messages: what
    is asked once more may not have come here the first time. A stream that another replica took over takes the place
    of all that it was asked before.
    """
    if own := [turn for turn in turns if turn.stream_id == asked.stream_id]:
        return own
    at = len(turns) - 1
    while at > 0 and turns[at].messages != asked.messages and _goes_on(turns[at], turns[at - 1]):
        at -= 1
    return turns[at:] if turns and turns[at].messages == asked.messages else []


def _goes_on(turn: Turn, before: Turn) -> bool:
    """Whether it is part of the same answer: of a call's results, or of an instruction."""
    return bool(results_in(turn.messages)) or turn.stream_id == before.stream_id


def _end(turn: Turn, answers: list[AnswerRecord], at: float) -> None:
    """A turn that was finished stays so, whatever somebody who took over its stream too late says of it."""
    if turn.state != "finished":
        turn.state = "finished" if any(answer.end == "finish" for answer in answers) else "broken"
        turn.answers, turn.ended = answers, at


def _time_of(each: Entry) -> float:
    return int(each[0].partition("-")[0]) / 1000
