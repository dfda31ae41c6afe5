"""A chat.completion.chunk, taken apart and added up. Chunks are OpenAI's:
https://platform.openai.com/docs/api-reference/chat/streaming
"""

from typing import Any

import msgspec


class _Chunk(msgspec.Struct, gc=False):
    choices: list[dict[str, Any]] | None = None


class _PlainDelta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One with nothing beside its text. What is None here is often there, and null."""

    role: Any = None
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None
    refusal: None = None
    audio: None = None
    function_call: None = None


class _PlainChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    index: Any = None
    delta: _PlainDelta | None = None
    finish_reason: Any = None
    logprobs: None = None
    stop_reason: None = None
    native_finish_reason: None = None


class _PlainChunk(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    created: Any = None
    choices: list[_PlainChoice] | None = None
    usage: Any = None
    error: Any = None


to_json = msgspec.json.Encoder().encode
THOUGHTS = ("reasoning_content", "reasoning")  # of a delta: vendors do not agree
# Parts of an answer for which there is no event: where there is one, the rest of the delta is a Vendor event.
OF_A_VENDOR = ("refusal", "audio", "images", "function_call")

_decode = msgspec.json.Decoder(_Chunk).decode
_decode_plain = msgspec.json.Decoder(_PlainChunk).decode

_OF_THE_CHOICE = frozenset({"index", "finish_reason", "delta", "message"})  # Perplexity's: all that was said so far
_OF_THE_DELTA = frozenset({"role", "content", *THOUGHTS, "tool_calls"})
_OF_A_CALL = ("index", "id", "function")
_OF_A_FUNCTION = ("name", "arguments")
_PADDING = b',"obfuscation":"'


def plain_text(raw: bytes) -> tuple[int, str] | None:
    """The choice, and its text, of a chunk that says a piece of text and nothing else; None for any other.

    Raises DecodeError or RecursionError for what is no JSON.
    """
    try:
        chunk = _decode_plain(raw)
    except msgspec.ValidationError:
        return None
    choices = chunk.choices
    if chunk.usage or chunk.error or not choices or len(choices) > 1:
        return None
    choice, delta = choices[0], choices[0].delta
    if delta is None or choice.finish_reason or delta.reasoning_content or delta.reasoning or delta.tool_calls:
        return None
    index, text = choice.index or 0, delta.content
    return (index, text) if type(text) is str and type(index) is int else None


class TextAlone:
    """Tells chunks that differ from one before in their text alone, byte for byte: most do, and need not be read."""

    def __init__(self) -> None:
        self._around: dict[int, tuple[bytes, bytes]] = {}  # choice -> what stood before and after its text

    def again(self, raw: bytes, index: int, text: str) -> bool:
        """Whether the chunk `raw`, with `text` for choice `index`, says nothing else that the one learned did not."""
        before, after = self._around.get(index, (b"", b""))
        return _unpadded(raw) == before + to_json(text) + after

    def learn(self, raw: bytes, index: int, text: str) -> None:
        """Has read this one. Raises UnicodeError for a text that cannot be written down."""
        before, found, after = _unpadded(raw).rpartition(to_json(text))
        if found:
            self._around[index] = before, after

    def forget(self) -> None:
        self._around.clear()


def _unpadded(raw: bytes) -> bytes:
    """Without what OpenAI puts at the end of each chunk so that its length does not tell its text."""
    said, _, pad = raw.partition(_PADDING)
    return said if pad.endswith(b'"}') and pad[:-2].isalnum() else raw


def beside(raw: bytes, index: int) -> dict[str, Any]:
    """What stands beside the text in choice `index` of the chunk `raw` and has no event of its own; mostly nothing.

    It has the shape of a choice: `{"logprobs": {...}, "delta": {"annotations": [...]}}`. Nulls are left out. Where
    the choice ends in this chunk, what is said of the whole choice is the FinishStep's.
    """
    try:
        _decode_plain(raw)  # of nearly all chunks, and a sixth of the work
        return {}
    except msgspec.ValidationError:
        pass
    choice = choice_of(raw, index)
    found = {name: it for name, it in choice.items() if it is not None and name not in _OF_THE_CHOICE}
    if found and choice.get("finish_reason"):
        found = {"logprobs": found["logprobs"]} if "logprobs" in found else {}
    delta = choice.get("delta") or {}
    if not _is_a_vendors(delta):
        rest = {name: it for name, it in delta.items() if it is not None and name not in _OF_THE_DELTA}
        found |= {"delta": rest} if rest else {}
    return found


def _is_a_vendors(delta: dict[str, Any]) -> bool:
    if isinstance(delta.get("content"), list) or any(delta.get(name) for name in OF_A_VENDOR):
        return True
    said = any(delta.get(name) for name in ("content", *THOUGHTS))
    return not said and thinks(delta.get("reasoning_details"))


def thinks(details: Any) -> bool:
    """Whether something is said in `reasoning_details`: mostly it is said beside them, by some models (MiniMax's
    `reasoning_split`) there alone.
    """
    found = details if isinstance(details, list) else ()
    return any(isinstance(it, dict) and (it.get("text") or it.get("summary")) for it in found)


def choice_of(raw: bytes, index: int) -> dict[str, Any]:
    """The choice of that index in the chunk `raw`; empty if it has none."""
    choices = _decode(raw).choices or []
    return next((choice for choice in choices if (choice.get("index") or 0) == index), {})


def call_in(raw: bytes, index: int, slot: int, id: str | None) -> dict[str, Any]:
    """The piece of a tool call in choice `index` of the chunk `raw`. Some vendors number none, or all alike: those have
    ids.
    """
    calls = (choice_of(raw, index).get("delta") or {}).get("tool_calls") or ()
    return max(calls, key=lambda it: (it.get("id") == id, (it.get("index") or 0) == slot), default={})


def beside_call(raw: bytes, index: int, slot: int, id: str | None) -> dict[str, Any] | None:
    """What else stood in the piece of a tool call, such as the signature that Gemini wants back; mostly nothing."""
    call = call_in(raw, index, slot, id)
    found = {name: it for name, it in call.items() if name not in _OF_A_CALL and it is not None}
    if found.get("type") == "function":
        del found["type"]
    function = {name: it for name, it in (call.get("function") or {}).items() if name not in _OF_A_FUNCTION}
    return found | ({"function": function} if function else {}) or None


def unnamed(raw: bytes, index: int) -> dict[str, Any] | None:
    """What of a choice's delta has no event of its own, such as a refusal; None if the chunk has no such choice."""
    choice = choice_of(raw, index)
    named = ("role", *THOUGHTS, "tool_calls")
    delta = {name: value for name, value in (choice.get("delta") or {}).items() if name not in named}
    if isinstance(delta.get("content"), str):
        del delta["content"]
    return delta if choice else None


def add_choice(whole: dict[str, Any], choice: dict[str, Any]) -> None:
    """Adds a chunk's choice to a choice: deltas and log probabilities are added up, of all else the last is kept.

    Keeps parts of `choice`, and changes them when more is added.
    """
    for name, value in choice.items():
        if name in ("delta", "logprobs"):
            add_delta(whole, {name: value})
        elif value not in (None, "", {}):  # Azure says `content_filter_results: {}` at the end
            whole[name] = value


_NOT_JOINED = frozenset({"role", "type", "id", "name", "format"})  # some providers repeat them in every chunk


def add_delta(whole: dict[str, Any], delta: dict[str, Any]) -> None:
    """Adds a delta the way OpenAI's SDKs do: texts are joined, lists go by `index` or grow, objects are merged."""
    for name, value in delta.items():
        known = whole.get(name)
        if value is None:
            whole.setdefault(name, None)
        elif isinstance(value, list) and (known is None or isinstance(known, list)):
            whole[name] = _indexed(value, known or [])
        elif name in _NOT_JOINED:
            whole[name] = value or known or value  # DashScope and others: `id: ""` with every later piece of a call
        elif isinstance(known, str) and isinstance(value, str):
            whole[name] = known + value
        elif name == "content" and isinstance(known, str | list) and isinstance(value, str | list):
            whole[name] = _in_parts(known, value) if known and value else known or value  # Mistral ends with ""
        elif isinstance(known, dict) and isinstance(value, dict):
            add_delta(known, value)
        else:
            whole[name] = value


def _in_parts(known: str | list[Any], more: str | list[Any]) -> list[Any]:
    """A content that is partly a text and partly a list of parts: Mistral's, where it thinks or cites."""
    if isinstance(known, str):
        known = [{"type": "text", "text": known}]
    if isinstance(more, list):
        return known + more
    if not (isinstance(known[-1], dict) and isinstance(known[-1].get("text"), str)):
        known.append({"type": "text", "text": ""})
    known[-1]["text"] += more
    return known


def _indexed(items: list[Any], whole: list[Any]) -> list[Any]:
    """Items that carry an `index` are merged with the last item of that index; others are appended."""
    for item in items:
        twin = _twin(item, whole) if isinstance(item, dict) else None
        if twin is None:
            whole.append(item)
        else:
            add_delta(twin, item)
    return whole


def _twin(item: dict[str, Any], whole: list[Any]) -> dict[str, Any] | None:
    """What `item` is a piece of. Gemini numbers no tool call, and others give 0 to all of them (OpenRouter, to all
    thoughts): then it is another id, or type, that begins another one. Only a call's first piece has its name.
    """
    index, function = item.get("index"), item.get("function")
    if index is None and function is None:
        return None
    known = next((it for it in reversed(whole) if isinstance(it, dict) and it.get("index") == index), None)
    named = not isinstance(function, dict) or bool(function.get("name"))
    if known is None or _differ("type", item, known) or (named and _differ("id", item, known)):
        return None
    return known


def _differ(name: str, one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one.get(name) and other.get(name) and one[name] != other[name])
