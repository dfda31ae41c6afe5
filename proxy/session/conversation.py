"""A conversation: the turns of a session as the store keeps them, and the messages they come to."""

import hashlib
from typing import Any, Literal

import msgspec

from proxy.adapter import Messages
from proxy.events import Usage
from proxy.session.messages import calls_of, up_to_the_call

SESSION_ID = r"\A(?!\.\.?\Z)[A-Za-z0-9._:-]{1,128}\Z"  # not `.` or `..`, which a URL cannot end in


def owner(key: str | None, user_id: str | None) -> str:
    """Whose a session is, as 32 hex digits: an API key (None where there is none) and a user of it (None: no user)."""
    named = msgspec.json.encode(["weir session owner", key, user_id or None])
    return hashlib.sha256(named).hexdigest()[:32]


class Spent(msgspec.Struct, omit_defaults=True):
    """Tokens billed for one answer. `details`: the rest of OpenAI's usage object."""

    input_tokens: int = 0
    output_tokens: int = 0
    details: dict[str, Any] | None = None

    @classmethod
    def of(cls, usage: Usage | None) -> "Spent | None":
        return cls(usage.input_tokens, usage.output_tokens, usage.details) if usage else None


class AnswerRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What one source said to a turn, and how that ended.

    `message` is an assistant message in OpenAI's shape, which may hold tool calls; where it broke, what was said until
    then. `provider` is the id of who answered, "" if nobody did; `source` the name it was asked by, among several.
    """

    provider: str
    end: Literal["finish", "error", "abort"]
    message: dict[str, Any] | None = None
    error: str = ""
    usage: Spent | None = None
    source: str = ""


class Turn(msgspec.Struct, kw_only=True):
    """A request's own messages, and what was answered. Times are in seconds since 1970, by the store's clock.

    `finished`: an answer is complete. `broken`: none is, and each one's `end` says why; without any answer, the
    replica that ran it died.
    """

    id: str
    stream_id: str
    state: Literal["running", "finished", "broken"] = "running"
    began: float
    ended: float | None = None
    messages: Messages
    answers: list[AnswerRecord] = []

    def said(self) -> dict[str, Any] | None:
        """What the conversation goes on from: the first whole answer, else the longest text that broke off.

        A call that broke off does not count: its arguments may be half of what they were to be.
        """
        if self.state == "running":
            return None
        for answer in self.answers:
            message = answer.message or {}
            if answer.end == "finish" and (message.get("content") or calls_of(message)):
                return message
        texts = [answer.message.get("content") for answer in self.answers if answer.message]
        text = max((text for text in texts if isinstance(text, str)), key=len, default="")
        return {"role": "assistant", "content": text} if text else None


class Feedback(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What a reader thinks of a stream, as far as `position`. `at` is in seconds since 1970; the store gives it."""

    stream_id: str
    position: int = 0
    rating: Literal["up", "down"] | None = None
    remark: str = ""
    source: str | None = None
    at: float = 0.0


class Session(msgspec.Struct, kw_only=True):
    """`instructions`: the system messages of turns that are kept no longer. Times are in seconds since 1970."""

    id: str
    created: float = 0.0
    updated: float = 0.0
    instructions: Messages = []
    turns: list[Turn] = []
    feedback: list[Feedback] = []

    def totals(self) -> dict[str, int]:
        """How many turns are kept, and the tokens billed for their answers."""
        spent = [answer.usage for turn in self.turns for answer in turn.answers if answer.usage]
        return {
            "turns": len(self.turns),
            "input_tokens": sum(usage.input_tokens for usage in spent),
            "output_tokens": sum(usage.output_tokens for usage in spent),
        }


def history(session: Session) -> Messages:
    """What has been said, in order. A turn that got no answer, or has none yet, is no part of it: ask again.

    The text of an answer that broke off is part of it, so that the reader can say "go on".
    """
    messages = list(session.instructions)
    for turn in session.turns:
        if said := turn.said():
            messages = up_to_the_call(messages, turn.messages)
            messages += [*turn.messages, said]
    return messages
