"""The ids of tool calls. In those of Gemini's, LiteLLM hides the signature of a thought, that it may come back."""

from typing import Any

from proxy.adapter import Messages

_SIGNED = "__thought__"


def unsigned(messages: Messages) -> Messages:
    """For a vendor that has no use for such signatures: OpenAI refuses an id of more than 40 characters."""
    return [_unsigned(message) for message in messages]


def _unsigned(message: Any) -> Any:
    match message:
        case {"tool_call_id": str(id)} if _SIGNED in id:
            return {**message, "tool_call_id": id.partition(_SIGNED)[0]}
        case {"tool_calls": [*calls]}:
            return {**message, "tool_calls": [_without(call) for call in calls]}
    return message


def _without(call: Any) -> Any:
    match call:
        case {"id": str(id)} if _SIGNED in id:
            return {**call, "id": id.partition(_SIGNED)[0]}
    return call
