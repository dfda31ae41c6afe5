"""The messages on a WebSocket, as the guide has them: `{"message_type", "request_id", "data"}`, one a text frame."""

from typing import Annotated, Any, Literal

import msgspec

from proxy.errors import RequestError, WeirError
from proxy.events import Event
from proxy.request import converted, parse_object
from proxy.wire.native import fields

LONGEST_NAME = 128  # characters of a request_id

_json = msgspec.json.Encoder().encode


class Message(msgspec.Struct):
    """What a client says. `request_id` is its own name for a chat, and means something on its socket only."""

    message_type: Literal["chat_request", "cancel", "pause", "resume", "feedback", "steer", "ping"]
    request_id: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)] | None = None
    data: dict[str, Any] | None = None


def read(text: str | bytes) -> Message:
    """Raises RequestError that names the field at fault."""
    try:
        return converted(parse_object(text), Message)
    except RequestError as error:
        error.message = error.message.replace("the body", "the message", 1)
        raise


def connected(user_id: str, session_id: str, connection_id: str) -> str:
    """The first message on a socket."""
    return _frame("connected", None, {"user_id": user_id, "session_id": session_id, "connection_id": connection_id})


class Resumed(msgspec.Struct, forbid_unknown_fields=True):
    """What a client wants to read on: a durable stream, after the last `position` that it has got of it."""

    stream_id: str
    after: str | None = None


def resumed(data: dict[str, object]) -> Resumed:
    """Raises RequestError that names the field at fault."""
    return converted(data, Resumed)


def stream_event(request_id: str, event: Event, position: str = "") -> str:
    """`event_type` is the event's type, `event_data` what else `native.py` says of it; a durable stream's have a
    `position`, after which it can be read on.
    """
    said = fields(event)
    data = {"event_type": said.pop("type"), "event_data": said}
    return _frame("stream_event", request_id, data | ({"position": position} if position else {}))


def stream_opened(request_id: str, stream_id: str) -> str:
    """The id under which a durable stream can be come back to; it comes before the stream's events."""
    return _frame("stream_opened", request_id, {"stream_id": stream_id})


def control_result(request_id: str, action: str, position: int) -> str:
    """`action` has taken effect: events with a `seq` above `position` come after it."""
    return _frame("control_result", request_id, {"action": action, "position": position})


def error(error: WeirError, request_id: str | None = None, about: str | None = None) -> str:
    """A message of the client's could not be obeyed; `about` is its type, where it could be read that far."""
    said = {"message": error.message, "code": error.code, "param": error.param, "about": about}
    return _frame("error", request_id, {name: value for name, value in said.items() if value})


def pong(request_id: str | None = None) -> str:
    """To a ping of that name, if it has one."""
    return _frame("pong", request_id, {})


def _frame(message_type: str, request_id: str | None, data: dict[str, Any]) -> str:
    frame = {"message_type": message_type, "request_id": request_id, "data": data}
    if request_id is None:
        del frame["request_id"]
    return _json(frame).decode()
