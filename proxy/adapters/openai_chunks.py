"""OpenAI's chat.completion.chunk, read into events: about a microsecond each."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from proxy.chunk import THOUGHTS, plain_text, thinks
from proxy.errors import Kind, ProviderError
from proxy.events import Event, Finish, FinishStep, ReasoningDelta, Start, TextDelta, ToolInputDelta, Usage, Vendor


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: Any = None
    tool_calls: list[_ToolCall] | None = None
    refusal: str | None = None
    audio: Any = None
    images: Any = None
    function_call: Any = None

    def has_more(self) -> bool:
        """It holds a part of an answer for which there is no event."""
        if self.refusal or self.audio or self.images or self.function_call or isinstance(self.content, list):
            return True
        return not (self.reasoning_content or self.reasoning or self.content) and thinks(self.reasoning_details)


class _Choice(msgspec.Struct, gc=False):
    index: int | None = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    usage: Any = None  # Moonshot's
    error: Any = None


class _Chunk(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    created: Any = None
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


class _WithTexts(msgspec.Struct, gc=False):
    choices: list[dict[str, Any]]


_TEXTS = ("content", *THOUGHTS)

_decode = msgspec.json.Decoder(_Chunk).decode


class ChunkReader:
    """Reads the chunks of one stream, in order, and knows whether the stream is complete."""

    def __init__(self, redact: Callable[[str], str]):
        self._redact = redact
        self._usage: Usage | None = None
        self._running: set[int] = set()  # choices that have begun and not ended
        self._seen: set[int] = set()
        self._calls: dict[int, dict[int, str]] = {}  # choice -> slot -> id of its call
        self._slots: dict[tuple[int, int | None], int] = {}  # choice and a call's index -> slot of the last one there
        self._plain = False  # text came last, so what comes now is probably text alone
        self._odd = False  # no: it comes with log probabilities, say

    def read(self, payload: bytes) -> list[Event]:
        """The events in one chunk. Raises ProviderError if it is an error, or no chunk at all."""
        # JSON sent on several lines: the breaks stand between its values, or it could not be read.
        payload = payload.replace(b"\n", b" ")
        try:
            if not payload.isascii():
                payload.decode()  # fields that we do not know are not looked at
            if self._plain and (text := self._plain_text(payload)):
                return [text]
            try:
                chunk = _decode(payload)
            except msgspec.ValidationError:
                payload = _as_text(payload)
                chunk = _decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ProviderError(Kind.GARBLED, f"sent a chunk that cannot be read: {error}") from None
        if failed := chunk.error or next((choice.error for choice in chunk.choices or () if choice.error), None):
            raise self._failure(failed)
        events: list[Event] = []
        for choice in chunk.choices or ():
            self._read_choice(chunk, choice, events)
        told = (choice.usage for choice in chunk.choices or () if isinstance(choice.usage, dict))
        if usage := chunk.usage or next(filter(None, told), None):
            self._usage = usage_of(usage)
            if not chunk.choices:
                events.append(self._usage)
        if is_text := len(events) == 1 and type(events[0]) is TextDelta:
            self._odd = self._odd or self._plain
        self._plain = is_text and not self._odd
        if not events:
            events.append(Vendor())
        for event in events:
            event.raw = payload
            event.parts = len(events)
        return events

    def _plain_text(self, payload: bytes) -> TextDelta | None:
        """The one event of a chunk with a piece of a running choice's text and nothing else: that is nearly all."""
        found = plain_text(payload)
        if found is None:
            return None
        index, text = found
        if not text or index not in self._running:
            return None
        return TextDelta(index=index, content=text, choice={}, raw=payload)

    def _read_choice(self, chunk: _Chunk, choice: _Choice, events: list[Event]) -> None:
        index, delta = choice.index or 0, choice.delta
        if index not in self._seen:
            self._seen.add(index)
            self._running.add(index)
            created = int(chunk.created) if isinstance(chunk.created, int | float) else 0
            events.append(Start(index=index, id=chunk.id or "", model=chunk.model or "", created=created))
        if delta is not None:
            if thought := delta.reasoning_content or delta.reasoning:
                events.append(ReasoningDelta(index=index, content=thought))
            if isinstance(delta.content, str) and delta.content:
                events.append(TextDelta(index=index, content=delta.content))
            for call in delta.tool_calls or ():
                events.append(_tool_input(index, self._slot(index, call), call))
            if delta.has_more():
                events.append(Vendor(index=index, answer=True))
        if choice.finish_reason:
            self._running.discard(index)
            events.append(FinishStep(index=index, reason=choice.finish_reason))

    def _slot(self, choice: int, call: _ToolCall) -> int:
        """Which of the choice's calls this is a piece of. Gemini numbers none of them, others give 0 to all: then it is
        another id, with a name, that begins another call.
        """
        ids = self._calls.setdefault(choice, {})
        slot = self._slots.get((choice, call.index), call.index or 0)
        if call.id and call.function and call.function.name and ids.setdefault(slot, call.id) != call.id:
            slot = max(ids) + 1
            ids[slot] = call.id
        self._slots[choice, call.index] = slot
        return slot

    @property
    def complete(self) -> bool:
        """Every choice that has begun has ended, and there was one."""
        return bool(self._seen) and not self._running

    def finish(self, least: int = 1) -> Finish:
        """The end of a complete stream, of `least` choices or more. Raises ProviderError (cut) if one has not ended."""
        if self._running or len(self._seen) < least:
            raise ProviderError(Kind.CUT, "the stream ended without a finish_reason")
        return Finish(usage=self._usage)

    def _failure(self, error: Any) -> ProviderError:
        said = error if isinstance(error, dict) else {"message": str(error)}
        code = str(said.get("code"))
        kind = Kind.of_status(int(code)) if re.fullmatch("[45][0-9][0-9]", code) else Kind.SERVER
        if "rate_limit" in code or "rate_limit" in str(said.get("type")):
            kind = Kind.RATE_LIMIT
        return ProviderError(kind, self._redact(str(said.get("message") or said)))


def _tool_input(index: int, slot: int, call: _ToolCall) -> ToolInputDelta:
    function = call.function or _Function()
    return ToolInputDelta(index=index, slot=slot, id=call.id, name=function.name, content=function.arguments or "")


def _as_text(payload: bytes) -> bytes:
    """The chunk with numbers for texts written as texts: Cloudflare's Workers AI says 6 where the token is "6"."""
    chunk = msgspec.json.decode(payload)
    for choice in msgspec.convert(chunk, _WithTexts).choices:
        delta = choice.get("delta")
        if isinstance(delta, dict):  # the chunk's own
            numbers = {name: it for name, it in delta.items() if name in _TEXTS and type(it) in (int, float)}
            delta |= {name: msgspec.json.encode(it).decode() for name, it in numbers.items()}
    return msgspec.json.encode(chunk)


def usage_of(usage: dict[str, Any]) -> Usage:
    """What OpenAI's usage object counts, in tokens; what is no number counts as none."""
    tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return Usage(input_tokens=_count(tokens_in), output_tokens=_count(tokens_out), details=usage)


def _count(tokens: Any) -> int:
    return max(0, int(tokens)) if isinstance(tokens, int | float) else 0
