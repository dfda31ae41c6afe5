"""The messages an AI SDK chat sends, as OpenAI's: what the SDK's own `convertToModelMessages` makes of them.

A step of an answer is one assistant message, then what its tools said. What OpenAI's wire has no place for is left out,
as the SDK does: sources, a model's own files, thoughts (but for what their vendor wants back), calls not yet answered.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from proxy.chunk import add_delta
from proxy.errors import RequestError
from proxy.request import converted

Messages = list[dict[str, Any]]


class _Approval(msgspec.Struct):
    reason: str | None = None
    approved: bool | None = None


class _Part(msgspec.Struct, rename="camel"):
    type: str
    text: str | None = None
    url: str | None = None
    media_type: str | None = None
    filename: str | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    state: str | None = None
    input: Any = None
    output: Any = None
    error_text: str | None = None
    approval: _Approval | None = None
    provider_metadata: dict[str, Any] | None = None
    call_provider_metadata: dict[str, Any] | None = None
    data: Any = None
    parts: list["_Part"] = []


class _Message(msgspec.Struct):
    role: Literal["system", "user", "assistant"]
    parts: list[_Part]
    id: str = ""


class _Body(msgspec.Struct):
    messages: list[_Message]


def read_messages(messages: Any) -> Messages:
    """OpenAI's messages for a list of UIMessage. Raises RequestError that names the part at fault."""
    found: Messages = []
    for place, message in enumerate(_checked(messages)):
        where = f"messages[{place}]"
        if message.role == "assistant":
            found += _assistant(message.parts, where)
        elif message.role == "user":
            found.append({"role": "user", "content": _content(message.parts, where)})
        else:
            found.append({"role": "system", "content": _text(message.parts)})
    return found


def continued(messages: list[dict[str, Any]]) -> str:
    """The id of the message that the answer goes on with, as after a tool that the client ran; empty if none.

    `messages` must have been read by `read_messages`.
    """
    last = messages[-1] if messages else {}
    return last.get("id") or "" if last.get("role") == "assistant" else ""


def _checked(messages: Any) -> list[_Message]:
    found = converted({"messages": messages}, _Body).messages
    for place, message in enumerate(found):
        for number, part in enumerate(message.parts):
            where = f"messages[{place}].parts[{number}]"
            if part.type == "text" and part.text is None:
                raise _wrong(f"{where}.text", "a text is needed here")
            if _tool_name(part) and not part.tool_call_id:
                raise _wrong(f"{where}.toolCallId", "a tool call needs its id")
    return found


def _text(parts: list[_Part]) -> str:
    return "".join(part.text or "" for part in parts if part.type == "text")


def _content(parts: list[_Part], where: str) -> str | list[dict[str, Any]]:
    """What a user said: a text alone is a string, which every server of OpenAI's wire takes."""
    said = [
        {"type": "text", "text": part.text or ""} if part.type == "text" else _file(part, f"{where}.parts[{place}]")
        for place, part in enumerate(parts)
        if part.type in ("text", "file")
    ]
    if not said:
        raise _wrong(f"{where}.parts", "a user's message needs a text or a file")
    return said[0]["text"] if len(said) == 1 and said[0]["type"] == "text" else said


_AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}


def _file(part: _Part, where: str) -> dict[str, Any]:
    """https://platform.openai.com/docs/api-reference/chat/create, content parts"""
    url, kind = part.url or "", part.media_type or ""
    scheme, _, data = url.partition(":")
    if kind.startswith("image/") and scheme in ("data", "http", "https"):
        return {"type": "image_url", "image_url": {"url": url}}
    if scheme != "data":
        what = f"a file of type {kind[:100]!r} at {url[:100]!r}"
        raise _wrong(f"{where}.url", f"{what} cannot be passed on: send it as a data: URL, or an image by its address")
    if kind in _AUDIO:
        return {"type": "input_audio", "input_audio": {"data": data.partition(",")[2], "format": _AUDIO[kind]}}
    return {"type": "file", "file": {"filename": part.filename or "file", "file_data": url}}


def _assistant(parts: list[_Part], where: str) -> Messages:
    found: Messages = []
    step: list[_Part] = []
    mine = _of_one(parts)
    for place, part in enumerate(parts):
        if not mine(part):
            continue
        if part.type in ("step-start", "data-steer", "steering-message"):
            found += _step(step)
            step = []
            found += _steered(part, f"{where}.parts[{place}]")
        elif part.type == "data-recovery" and isinstance(part.data, dict) and part.data.get("how") == "restarted":
            step = []  # the SDKs before 7.0.70 cannot take it back
        else:
            step.append(part)
    return found + _step(step)


def _of_one(parts: list[_Part]) -> Callable[[_Part], bool]:
    """Whether a part counts: of several sources the conversation goes on from the first whole one, as a session does,
    and of several choices from the first.
    """
    ends = [part.data for part in parts if part.type == "data-source-end" and isinstance(part.data, dict)]
    broken = [end.get("source") for end in ends if end.get("reason") != "finish"]
    sources = [source for part in parts if (source := _ours(part).get("source"))]
    one = next((source for source in sources if source not in broken), sources[0] if sources else None)
    return lambda part: _ours(part).get("source", one) == one and not _ours(part).get("index")


def _ours(part: _Part) -> dict[str, Any]:
    """What Weir has noted at a part."""
    noted = (part.provider_metadata or part.call_provider_metadata or {}).get("weir")
    return noted if isinstance(noted, dict) else {}


def _steered(part: _Part, where: str) -> Messages:
    """What the user said while the answer came: here by Weir's own marker, or as AI SDK 7 has it."""
    if part.type == "steering-message":
        return [{"role": "user", "content": _content(part.parts, where)}]
    if part.type == "data-steer" and isinstance(part.data, dict) and isinstance(part.data.get("instruction"), str):
        return [{"role": "user", "content": part.data["instruction"]}]
    return []


def _step(parts: list[_Part]) -> Messages:
    """One call of a model: what it said, and what its tools said to it."""
    message: dict[str, Any] = {}
    for part in parts:
        extra = _ours(part).get("extra")
        if part.type == "reasoning" and isinstance(extra, dict):
            add_delta(message, extra)
    text = _text(parts)
    told = [(part, said) for part in parts if _tool_name(part) and (said := _result(part)) is not None]
    if not text and not told:
        return []
    message |= {"role": "assistant", "content": text or None}
    if told:
        message["tool_calls"] = [_call(part) for part, _ in told]
    return [message, *({"role": "tool", "tool_call_id": part.tool_call_id, "content": said} for part, said in told)]


def _tool_name(part: _Part) -> str:
    """The tool's name; empty if the part is no tool call."""
    if part.type == "dynamic-tool":
        return part.tool_name or "unknown"
    return part.type[5:] if part.type.startswith("tool-") else ""


def _call(part: _Part) -> dict[str, Any]:
    given = {} if part.input is None else part.input
    function = {"name": _tool_name(part), "arguments": _json(given)}
    return {"id": part.tool_call_id, "type": "function", "function": function}


def _result(part: _Part) -> str | None:
    """What the tool said, or why it said nothing; None while nobody knows."""
    if part.state == "output-available":
        return part.output if isinstance(part.output, str) else _json(part.output)
    if part.state == "output-error":
        return part.error_text or "the tool failed"
    refused = part.state == "approval-responded" and part.approval is not None and part.approval.approved is False
    if part.state == "output-denied" or refused:
        return (part.approval.reason if part.approval else None) or "Tool call execution denied."
    return None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _wrong(param: str, message: str) -> RequestError:
    return RequestError(f"{param}: {message}", param=param)
