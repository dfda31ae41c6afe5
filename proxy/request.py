"""A chat completions request: OpenAI's body as it came, plus one field of ours, `weir`."""

import copy
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, TypeVar

import msgspec
from pydantic import ValidationError

from proxy.errors import RequestError
from proxy.heading import Heading
from proxy.provider import ProviderConfig, Retry, Timeouts, mistakes
from proxy.session.messages import calls_of

MAX_DEPTH = 100  # levels of lists and objects
MOST_SOURCES = 16


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """The field `weir`: what this request wants of Weir. `retry` and `timeouts` override the provider's own.

    `mode` and `config` name a stream mode and its options. `providers` answer all at once, into one stream.
    `session_id` is the conversation this belongs to; with `history` what was said in it goes before the messages,
    and with `replace_last` this turn takes the place of the last answer to the same messages.

    A `durable` stream is kept in Redis before it is shown, and outlives its connection: for `detached` seconds without
    a reader. `recovery` is what is to be done where the provider dies in the middle of an answer, or the replica.
    """

    retry: dict[str, float] = {}
    timeouts: dict[str, float] = {}
    fallback: bool = True
    mode: str = "standard"
    config: dict[str, Any] = {}
    providers: list[str] = []
    session_id: str | None = None
    history: bool = False
    replace_last: bool = False
    durable: bool | None = None
    detached: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 60.0
    recovery: Literal["fail", "restart", "continue"] = "fail"

    def retry_of(self, config: ProviderConfig) -> Retry:
        """The provider's retry policy, as this request wants it."""
        return _overridden(config.retry, self.retry, "weir.retry")

    def timeouts_of(self, config: ProviderConfig) -> Timeouts:
        """The provider's limits, as this request wants them."""
        return _overridden(config.timeouts, self.timeouts, "weir.timeouts")


_Policy = TypeVar("_Policy", bound=Retry | Timeouts)


def _overridden(policy: _Policy, changes: dict[str, float], param: str) -> _Policy:
    if not changes:
        return policy
    try:
        return type(policy)(**{**policy.model_dump(), **changes})
    except ValidationError as error:
        where, what = mistakes(error)[0]
        param = ".".join([param, *map(str, where)])
        raise RequestError(f"{param}: {what}", param=param) from None


class _Message(msgspec.Struct):
    role: str


_AtLeast0 = Annotated[float, msgspec.Meta(ge=0)] | None
_Count = Annotated[int, msgspec.Meta(ge=1)] | None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Known(msgspec.Struct):
    """The fields whose shape Weir answers for; all others are the provider's to judge."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: _Count = None
    max_tokens: _Count = None
    max_completion_tokens: _Count = None
    temperature: _AtLeast0 = None
    top_p: _AtLeast0 = None
    tools: list[dict[str, Any]] | None = None
    user: str | None = None
    weir: Options | None = None


class _Kept(msgspec.Struct):
    id: str
    body: dict[str, Any]
    owner: str
    user_id: str | None
    options_in: str


class ChatRequest:
    """One request. `fields` are the body's fields for the adapter: all but model, messages, tools, stream and weir."""

    def __init__(self, body: dict[str, Any], id: str):
        """Raises RequestError (400) that names the field at fault."""
        known = converted(body, _Known)
        self.id = id
        self.model = known.model
        self.messages: list[dict[str, Any]] = body["messages"]
        self.tools: list[dict[str, Any]] | None = body.get("tools")
        self.stream = bool(known.stream)
        self.include_usage = bool(known.stream_options and known.stream_options.include_usage)
        self.options = known.weir or Options()
        self.user_id: str | None = None  # for whom the client asks
        self.owner = ""  # whose session `options.session_id` is
        self.ui = 5  # the version of the AI SDK that is to read the answer
        self.options_in = "weir."  # how the names of mode and config begin where they were given
        if self.options.retry:
            _overridden(Retry(), self.options.retry, "weir.retry")
        if self.options.timeouts:
            _overridden(Timeouts(), self.options.timeouts, "weir.timeouts")
        if "connect" in self.options.timeouts:
            message = "weir.timeouts.connect: this limit is the provider's own; use first_token"
            raise RequestError(message, param="weir.timeouts.connect")
        ours = ("model", "messages", "tools", "stream", "weir")
        self.fields = {name: value for name, value in body.items() if name not in ours}
        self.user = known.user
        self.choices = known.n or 1
        if problem := _problem_with(self.options.providers, known.n):
            raise RequestError(f"weir.providers: {problem}", param="weir.providers")
        if self.options.recovery != "fail" and len(self.options.providers) > 1:
            problem = "of several providers the others go on where one breaks: only `fail` is possible"
            raise RequestError(f"weir.recovery: {problem}", param="weir.recovery")

    @property
    def sources(self) -> list[str]:
        """Who is to answer, by id or by name of a model: each of them in full."""
        return self.options.providers or [self.model]

    def heading(self, message_id: str = "") -> Heading:
        """What the formats have to know of the answer's stream."""
        goes_on = message_id not in ("", self.id)  # with a message of the client's
        return Heading(
            self.id,
            self.model,
            self.sources,
            self.include_usage,
            message_id=message_id,
            calls=[call for message in self.messages for call in calls_of(message)] if goes_on else [],
            ui=self.ui,
        )

    def keep(self) -> bytes:
        """The request as `kept` reads it, on another replica perhaps."""
        weir = msgspec.structs.asdict(self.options)
        body = {**self.fields, "model": self.model, "messages": self.messages, "stream": self.stream, "weir": weir}
        if self.tools is not None:
            body["tools"] = self.tools
        return msgspec.json.encode(_Kept(self.id, body, self.owner, self.user_id, self.options_in))

    @classmethod
    def kept(cls, data: bytes) -> Self:
        """The request that `keep` wrote down."""
        kept = msgspec.json.decode(data, type=_Kept)
        request = cls(kept.body, kept.id)
        request.owner, request.user_id, request.options_in = kept.owner, kept.user_id, kept.options_in
        return request

    def with_messages(self, messages: list[dict[str, Any]]) -> Self:
        """The same request about other messages."""
        twin = copy.copy(self)
        twin.messages = messages
        return twin


def parse_object(data: bytes | str) -> dict[str, Any]:
    """A JSON object of sane depth. Raises RequestError (400)."""
    try:
        body = msgspec.json.decode(data)
        if not _within(MAX_DEPTH, body):
            raise RecursionError
    except RecursionError:
        raise RequestError("the body is nested too deeply", code="invalid_json") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise RequestError(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object", code="invalid_json")
    return body


def _problem_with(providers: list[str], n: int | None) -> str | None:
    if len(providers) > MOST_SOURCES:
        return f"at most {MOST_SOURCES} may answer at once"
    if len(set(providers)) < len(providers):
        return "the same one cannot answer twice; use n"
    if len(providers) > 1 and (n or 1) > 1:
        return "several providers and `n` do not go together: each of them is a choice"
    return None


def _within(depth: int, value: Any) -> bool:
    """Whether `value` has at most so many levels: what was read on a short stack is written again on longer ones."""
    level = [value]
    for _ in range(depth):
        level = [child for node in level if isinstance(node, dict | list) for child in _children(node)]
        if not level:
            return True
    return False


def _children(node: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node


_T = TypeVar("_T")
_FIELD = re.compile(r"(?:missing required|contains unknown) field `(.*)`")


def converted(data: Any, kind: type[_T]) -> _T:
    """`data` as a `kind`. Raises RequestError: what msgspec says, with the field at fault named."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        absent = _FIELD.search(message)
        param = (path.rstrip("`") + (f".{absent[1]}" if absent else "")).lstrip(".")
        raise RequestError(f"{param}: {message}", param=param) from None
