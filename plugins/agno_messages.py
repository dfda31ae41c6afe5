"""OpenAI's messages as agno's `Message`s (its `agno/models/message.py`)."""

import base64
from typing import Any

from proxy.adapter import Messages
from proxy.errors import Kind, ProviderError

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


def agno_messages(messages: Messages) -> list[Any]:
    """What an agent is asked; its model gets it after the agent's own instructions. Raises ProviderError."""
    found = []
    names: dict[str, str] = {}  # of tools, by the call: some models want them with the result
    for number, message in enumerate(messages):
        try:
            names |= {call["id"]: call["function"]["name"] for call in message.get("tool_calls") or ()}
            found.append(_message(message, names))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProviderError(Kind.REJECTED, f"messages[{number}] cannot be given to an agent: {error!r}") from None
    return found


def _message(message: dict[str, Any], names: dict[str, str]) -> Any:
    from agno.models.message import Message

    if message["role"] not in ROLES:
        raise ValueError(f"role {message['role']!r}")
    fields = {name: message[name] for name in ("name", "tool_calls", "tool_call_id") if message.get(name)}
    content = message.get("content")
    if isinstance(content, list):
        content, media = _parts(content)
        fields |= media
    tool = names.get(message.get("tool_call_id") or "")
    return Message(role=ROLES[message["role"]], content=content, tool_name=tool, **fields)


def _parts(parts: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """The text of a message, and what is shown or played with it."""
    from agno.media import Audio, Image

    text = ""
    media: dict[str, list[Any]] = {}
    for part in parts:
        match part["type"]:
            case "text" | "refusal" as kind:
                text += part[kind]
            case "image_url":
                image = part["image_url"]
                media.setdefault("images", []).append(Image(**_source(image["url"]), detail=image.get("detail")))
            case "input_audio":
                sound = part["input_audio"]
                content = base64.b64decode(sound["data"], validate=True)
                media.setdefault("audio", []).append(Audio(content=content, format=sound["format"]))
            case kind:
                raise ValueError(f"a part of type {kind!r}")
    return text, media


def _source(url: str) -> dict[str, Any]:
    if url.startswith(("https://", "http://")):
        return {"url": url}
    head, comma, data = url.partition(";base64,")
    if not head.startswith("data:") or not comma:
        raise ValueError("an image must be an http(s) URL, or a data: URL in base64")
    return {"content": base64.b64decode(data, validate=True), "mime_type": head.removeprefix("data:")}
