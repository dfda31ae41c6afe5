"""What flows: every stream in Weir is a series of these values, ended by exactly one of Finish, Error, Abort.

Where several sources answer into one stream, each of them ends in one SourceEnd, and the stream ends after the last.

The names on the wire (`type`) are those of Vercel's AI SDK (its UI message stream, version 5 and later).
An event that came from an OpenAI-wire provider remembers the chunk it came in (`raw`), so that a stream that
nobody reshaped leaves as it came, byte for byte. A mode that changes an event makes a new one, without `raw`.
"""

from typing import Any, ClassVar, Literal

import msgspec

from proxy.errors import Stopped, WeirError


class Event(msgspec.Struct, tag_field="type", kw_only=True, omit_defaults=True, gc=False):
    """One thing that happened in a stream.

    `index` is the choice it belongs to (OpenAI's `choices[].index`). `raw` is the JSON text of the provider's chunk;
    where one chunk held several events, each has the same `raw` and `parts` counts them. `source` is who said it,
    where several may; `seq` its position in the stream, from 1, given to it when it leaves for the reader.

    Where the bytes were left behind, by the log of a durable stream or by a mode that cuts text anew, `choice` is what
    else stood in the choice it came in (log probabilities, say, or more of the delta), and `chunk` what else stood in
    the chunk. An empty `choice` says that nothing did; None, that nobody has looked.
    """

    commits: ClassVar[bool] = False  # the client has seen part of an answer: no silent retry from here on

    index: int = 0
    raw: bytes | None = None
    parts: int = 1
    choice: dict[str, Any] | None = None
    chunk: dict[str, Any] | None = None
    source: str = ""
    seq: int = 0


class Start(Event, tag="start"):
    """A choice begins. `created` is in seconds since 1970."""

    id: str = ""
    model: str = ""
    created: int = 0


class TextDelta(Event, tag="text-delta"):
    commits = True
    content: str


class ReasoningDelta(Event, tag="reasoning-delta"):
    """`extra` holds what the vendor must get back with the thought, such as its signature."""

    commits = True
    content: str
    extra: dict[str, Any] | None = None


class ToolInputDelta(Event, tag="tool-input-delta"):
    """A piece of a tool call's arguments. `id` and `name` come with the first piece of call number `slot`.

    `extra` is what else stood in the piece, once its bytes were left behind.
    """

    commits = True
    content: str = ""
    slot: int = 0
    id: str | None = None
    name: str | None = None
    extra: dict[str, Any] | None = None


class ToolInput(Event, tag="tool-input-available"):
    """A tool that an agent runs by itself; the client is told, and not asked to run it."""

    commits = True
    id: str
    name: str
    input: Any = None


class ToolOutput(Event, tag="tool-output-available"):
    """What such a tool said; or `error`, why it said nothing."""

    commits = True
    id: str
    output: Any = None
    error: str | None = None


class FinishStep(Event, tag="finish-step"):
    """A choice is complete. `reason` is OpenAI's: stop, length, tool_calls, content_filter ..."""

    reason: str


class Usage(Event, tag="data-usage"):
    """Tokens billed for the whole stream. `details`: the rest of OpenAI's usage object."""

    input_tokens: int = 0
    output_tokens: int = 0
    details: dict[str, Any] | None = None


class Vendor(Event, tag="data-vendor"):
    """A chunk that says nothing Weir has a name for; it passes as it came. `answer`: it is part of the answer."""

    answer: bool = False


class Steered(Event, tag="data-steer"):
    """The answer was stopped here, and goes on as the reader wished: what follows answers `instruction`."""

    instruction: str


class Recovered(Event, tag="data-recovery"):
    """What produced the answer died, and this is what came of it: what follows goes on from what was said (continued),
    is a new answer in place of all after position `after` (restarted), or is the end (failed). `reason` is for people.
    """

    how: Literal["continued", "restarted", "failed"]
    after: int = 0
    reason: str = ""


class SourceEnd(Event, tag="data-source-end"):
    """One of several sources has ended; `reason` is finish, error or abort, the rest as in those."""

    reason: Literal["finish", "error", "abort"]
    usage: Usage | None = None
    message: str = ""
    code: str = ""


class Quiet(Event, tag="data-quiet"):
    """The time at which a mode asked to be woken has come (`Merge.wake_at`). It never leaves the house."""


class Finish(Event, tag="finish"):
    """The stream is complete: the provider said so."""

    usage: Usage | None = None


class Error(Event, tag="error"):
    """The stream broke. What came before it stands, and is not complete.

    `status` is the HTTP status that says so, where nothing came before it.
    """

    message: str
    code: str = "provider_error"
    status: int = 502


class Abort(Event, tag="abort"):
    """Somebody stopped the stream: the client, an operator, a server that shuts down."""

    reason: str = ""


ENDS = frozenset((Finish, Error, Abort))
MODE_FAILED = "mode_failed"  # the code of an Error that no provider is to blame for


def ending(error: WeirError) -> Error | Abort:
    """How a stream ends that `error` breaks, or keeps from beginning."""
    if isinstance(error, Stopped):
        return Abort(reason=error.message)
    return Error(message=error.message, code=error.code, status=error.status)


def commits(event: Event) -> bool:
    """Whether a client that got `event` has seen part of an answer."""
    return event.commits or (isinstance(event, Vendor) and event.answer)
