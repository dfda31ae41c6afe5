"""What LiteLLM's vendor parsers yield, read into events.

They are read before LiteLLM's CustomStreamWrapper gets them: that invents a finish_reason "stop" for a stream that was
cut, keeps only the first choice's end, and costs more than all the rest of a chunk.
"""

import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec

from proxy.adapters.openai_chunks import usage_of
from proxy.chunk import OF_A_VENDOR
from proxy.errors import Kind, ProviderError
from proxy.events import Event, Finish, FinishStep, ReasoningDelta, Start, TextDelta, ToolInputDelta, Usage, Vendor


async def vendor_chunks(stream: Any, parsers: Mapping[str, Callable[..., Any]]) -> AsyncIterator[Any]:
    """What the vendor's parser yields, from beneath LiteLLM's CustomStreamWrapper. `parsers` take the place of some."""
    source = stream.completion_stream
    if source is None:
        source = await stream.fetch_stream()
    if hasattr(source, "chunk_parser"):
        source.chunk_parser = parsers.get(type(source).__name__) or _truthful(source.chunk_parser)
    if not hasattr(source, "__aiter__"):
        async for chunk in stream:  # a blocking SDK such as boto3: the wrapper reads it in a thread
            if not (stream.received_finish_reason or stream.intermittent_finish_reason):
                for choice in chunk.choices:
                    choice.finish_reason = None  # made up by the wrapper
            yield chunk
        return
    async for chunk in source:
        if hasattr(chunk, "choices") or (isinstance(chunk, dict) and "is_finished" in chunk):
            yield chunk
        elif chunk and (translated := stream.chunk_creator(chunk)):  # a vendor whose parser does half of the work
            yield translated


def _truthful(parse: Callable[..., Any]) -> Callable[..., Any]:
    """A vendor's parser that reports an end only where the vendor wrote one.

    LiteLLM's parser for Gemini puts finish_reason "stop" on every chunk that has none, the one for Anthropic on a
    message_delta that has none; both would make a stream that was cut look complete.
    """

    def parsed(*args: Any, **named: Any) -> Any:
        chunk, raw = parse(*args, **named), (*args, *named.values())[0]
        if isinstance(raw, dict) and (ended := _ended(raw)) is not None:
            for choice in chunk.choices:
                choice.finish_reason = choice.finish_reason if choice.index in ended else None
        return chunk

    return parsed


def _ended(raw: dict[str, Any]) -> set[int] | None:
    """The choices that end with this message of Gemini or Anthropic; None if LiteLLM is right about it."""
    if raw.get("candidates") and "blockReason" not in (raw.get("promptFeedback") or {}):
        return {it.get("index", at) for at, it in enumerate(raw["candidates"]) if it.get("finishReason")}
    if raw.get("type") == "message_delta" and not raw["delta"].get("stop_reason"):
        return set()
    return None


_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Piece(msgspec.Struct, gc=False):
    """A delta, with the fields that are read of LiteLLM's own, which takes ten times as long to be made."""

    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: Any = None
    thinking_blocks: Any = None
    provider_specific_fields: Any = None


# What a chunk says in its choices, if these run and it is a piece of an answer and nothing else; else None.
Pieces = Callable[[dict[str, Any], Callable[[int], bool]], Sequence[tuple[int, Piece]] | None]


class TranslatedReader:
    """Reads a vendor's own chunks, of one stream and in order. Of most, LiteLLM is only asked what they say."""

    def __init__(self, reader: "VendorReader", parser: Any, pieces: Pieces):
        self._reader = reader
        self._translate = _truthful(parser.chunk_parser)
        self._pieces = pieces

    def read(self, payload: bytes) -> list[Event]:
        """The events in one chunk. Raises ProviderError (garbled) if it is none, or whatever LiteLLM's parser does."""
        if not payload or payload.startswith(b"[DONE]"):  # an empty one is the heartbeat of some gateways
            return []
        try:
            chunk = _decode(payload)
            pieces = self._pieces(chunk, self._reader.runs)
            return self._reader.read(self._translate(chunk)) if pieces is None else self._reader.hear(pieces)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            said = str(error).partition("\n")[0]
            raise ProviderError(Kind.GARBLED, f"sent a chunk that cannot be read: {said}") from None


_REMARKS = ("annotations",)
_SOURCES = ("citations", "search_results")  # of the whole answer; Perplexity says them again in every chunk


class VendorReader:
    """Reads the chunks of one stream, in order, and knows whether the stream is complete."""

    def __init__(self, model: str):
        self._model = model
        self._usage: Any = None
        self._sources: dict[str, Any] = {}
        self._parsed = False
        self._choices: dict[int, _Choice] = {}

    def read(self, chunk: Any) -> list[Event]:
        """The events in `chunk`: a ModelResponseStream, OpenAI's own chunk, or LiteLLM's older dict."""
        events: list[Event] = []
        if isinstance(chunk, dict):
            self._read_dict(chunk, events)
            return events
        self._parsed = True
        for choice in chunk.choices or ():
            self._begin(choice.index, chunk, events).read(choice, events)
        if self._choices and (sources := _named(chunk, _SOURCES)) and sources != self._sources:
            self._sources = sources
            events.append(Vendor(choice={}, chunk=sources))
        if (usage := getattr(chunk, "usage", None)) is not None:
            self._usage = usage
        return events

    def hear(self, pieces: Sequence[tuple[int, Piece]]) -> list[Event]:
        """The events in pieces of choices that run."""
        events: list[Event] = []
        for index, piece in pieces:
            self._choices[index].hear(piece, events)
        return events

    def runs(self, index: int) -> bool:
        """Whether that choice has begun, and not ended."""
        choice = self._choices.get(index)
        return choice is not None and not choice.ended

    def finish(self) -> list[Event]:
        """The end of a complete stream. Raises ProviderError (cut) if a choice has not ended."""
        if not self._choices or not all(choice.ended for choice in self._choices.values()):
            raise ProviderError(Kind.CUT, "the stream ended without a finish_reason")
        if self._usage is None:
            return [Finish()]
        usage = _usage(self._usage)
        return [usage, Finish(usage=usage)]

    @property
    def started(self) -> bool:
        """Whether the vendor has begun to answer."""
        return bool(self._choices)

    def _begin(self, index: int, chunk: Any, events: list[Event]) -> "_Choice":
        if (choice := self._choices.get(index)) is None:
            choice = self._choices[index] = _Choice(index)
            model = getattr(chunk, "model", None) or self._model
            created = int(getattr(chunk, "created", None) or time.time())
            events.append(Start(index=index, id=getattr(chunk, "id", None) or "", model=model, created=created))
        return choice

    def _read_dict(self, chunk: dict[str, Any], events: list[Event]) -> None:
        text, call, reason = chunk["text"], chunk.get("tool_use"), chunk["is_finished"] and chunk["finish_reason"]
        if self._parsed:  # among proper chunks it stands for a blank line or for [DONE], which says nothing of an end
            reason = None
        if text or call or reason:
            choice = self._begin(chunk.get("index") or 0, chunk, events)
            choice.text(text, events)
            choice.calls([call] if call else (), events)
            choice.end(reason, events)
        self._usage = chunk.get("usage") or self._usage


_RUN_BY_ANTHROPIC = "srvtoolu_"  # how the ids of such calls begin


class _Choice:
    """One choice: what of it must be remembered until it ends."""

    def __init__(self, index: int):
        self._index = index
        self._thought = ""
        self._given: dict[int, bool] = {}  # slots of calls: whether there are arguments yet
        self._theirs: set[int] = set()  # slots of tools that the vendor runs by itself
        self.ended = False

    def read(self, choice: Any, events: list[Event]) -> None:
        if choice.delta is not None:
            self.hear(choice.delta, events)
        if logprobs := _named(choice, ("logprobs",)):
            last = events[-1] if events else None
            if isinstance(last, TextDelta) and last.index == self._index:
                last.choice = logprobs  # so that a mode may cut the text anew
            else:
                events.append(Vendor(index=self._index, choice=logprobs))
        self.end(choice.finish_reason, events)

    def hear(self, delta: Any, events: list[Event]) -> None:
        self._think(delta, events)
        self.text(delta.content, events)
        self.calls(delta.tool_calls or (), events)
        if type(delta) is not Piece:
            parts, remarks = _named(delta, OF_A_VENDOR), _named(delta, _REMARKS)
            if parts or remarks:
                events.append(Vendor(index=self._index, answer=bool(parts), choice={"delta": parts | remarks}))

    def text(self, text: str | None, events: list[Event]) -> None:
        if text:
            events.append(TextDelta(index=self._index, content=text))

    def calls(self, calls: Any, events: list[Event]) -> None:
        for call in calls:
            function, slot, id = _get(call, "function"), _get(call, "index") or 0, _get(call, "id")
            if id is not None and id.startswith(_RUN_BY_ANTHROPIC):
                self._theirs.add(slot)
            if slot in self._theirs:
                continue  # a client would take it for its own to run, and send it back without a result
            slot -= sum(theirs < slot for theirs in self._theirs)
            name, arguments = _get(function, "name"), _get(function, "arguments") or ""
            if id is None and name and slot not in self._given:
                id = f"call_{uuid.uuid4().hex[:24]}"  # LiteLLM gives none to Ollama's second call
            self._given[slot] = self._given.get(slot, False) or bool(arguments)
            events.append(ToolInputDelta(index=self._index, slot=slot, id=id, name=name, content=arguments))

    def end(self, reason: str | None, events: list[Event]) -> None:
        if reason and not self.ended:
            self.ended = True
            # Some vendors end a tool call with their word for "stop"; OpenAI's clients look for this one.
            reason = "tool_calls" if reason == "stop" and self._given else reason
            if reason == "tool_calls":
                # Clients read the arguments as JSON, and Bedrock says nothing where there are none.
                bare = [slot for slot, given in self._given.items() if not given]
                events += [ToolInputDelta(index=self._index, slot=slot, content="{}") for slot in bare]
            events.append(FinishStep(index=self._index, reason=reason))

    def _think(self, delta: Any, events: list[Event]) -> None:
        thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None) or ""
        self._thought += thought
        extra = self._proof(delta)
        if thought or extra:
            events.append(ReasoningDelta(index=self._index, content=thought, extra=extra))

    def _proof(self, delta: Any) -> dict[str, Any] | None:
        """What the vendor wants back with the thought: whole blocks, since a signature covers all of its text."""
        blocks = []
        for block in getattr(delta, "thinking_blocks", None) or ():
            if signature := _get(block, "signature"):
                blocks.append({"type": "thinking", "thinking": self._thought, "signature": signature})
                self._thought = ""
            elif _get(block, "type") == "redacted_thinking":
                blocks.append({"type": "redacted_thinking", "data": _get(block, "data")})
        extra: dict[str, Any] = {"thinking_blocks": blocks} if blocks else {}
        fields = getattr(delta, "provider_specific_fields", None) or {}
        if signatures := fields.get("thought_signatures"):
            extra["provider_specific_fields"] = {"thought_signatures": signatures}  # where LiteLLM looks for them
        return extra or None


def _get(thing: Any, name: str) -> Any:
    """LiteLLM's parsers use dicts and objects for the same thing."""
    return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)


def _named(thing: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """What it has of these, as JSON has it."""
    found = {name: said for name in names if (said := getattr(thing, name, None))}
    return msgspec.to_builtins(found, enc_hook=_dumped) if found else found


def _dumped(model: Any) -> Any:
    return model.model_dump(mode="json", exclude_none=True)


def _usage(usage: Any) -> Usage:
    counted = usage_of(usage if isinstance(usage, dict) else usage.model_dump(mode="json", exclude_none=True))
    # A vendor's own sum may leave out what was read from its cache, and LiteLLM keeps it.
    total = {"total_tokens": counted.input_tokens + counted.output_tokens}
    return msgspec.structs.replace(counted, details={**(counted.details or {}), **total})
