"""What a reader may say back to a running stream, from whichever replica, and what comes of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec

from proxy.errors import RequestError, WeirError
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.stream import LONGEST_PAUSE, Stream
from proxy.request import converted
from proxy.session.conversation import Feedback
from proxy.state.controls import ControlBus
from proxy.state.store import Store

PATIENCE = 5.0  # seconds until a control that has not taken effect is a 504
HALF = 2.5  # of them, for the replica that holds the stream
NOT_FOUND = "stream_not_found"

Action = Literal["cancel", "pause", "resume", "feedback", "steer"]


class Control(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One control. `seconds` is for pause, `instruction` for steer; the rest is for feedback: a rating or a
    remark, about what was said up to `position` (default: now) by `source` (where several answer).
    """

    action: Action
    reason: Annotated[str, msgspec.Meta(max_length=500)] = "cancelled by its reader"
    seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = LONGEST_PAUSE
    instruction: Annotated[str, msgspec.Meta(max_length=10_000)] = ""
    rating: Literal["up", "down"] | None = None
    remark: Annotated[str, msgspec.Meta(max_length=10_000)] = ""
    position: Annotated[int, msgspec.Meta(ge=0)] | None = None
    source: Annotated[str, msgspec.Meta(max_length=200)] | None = None

    @classmethod
    def read(cls, action: str, data: dict[str, Any]) -> "Control":
        """Raises RequestError that names the field at fault."""
        control = converted({**data, "action": action}, cls)
        if action == "steer" and not control.instruction.strip():
            raise RequestError("instruction: say how the answer is to go on", param="instruction")
        if action == "feedback" and control.rating is None and not control.remark:
            raise RequestError("rating: `up` or `down`, or a remark, is missing", param="rating")
        return control


# The replica that produces a durable stream of an owner's now; None where there is no such stream.
Producer = Callable[[str, str], Awaitable[str | None]]


class Controls:
    """Finds the stream a control is for, here or on another replica, and tells what came of it."""

    def __init__(self, pipeline: Pipeline, store: Store, replica: str, producer: Producer):
        self._pipeline = pipeline
        self._producer = producer
        self.bus = ControlBus(store, replica, self._act)

    async def send(self, stream_id: str, owner: str, control: Control) -> dict[str, Any]:
        """`{"stream_id", "action", "position"}`: what comes after that position comes after the control.

        Raises RequestError: 404 for a stream that is not there, or not `owner`'s; 409 where it came too late; 504
        where it has not taken effect in time, and may yet. StoreAway if the stream is elsewhere, and Redis away.
        """
        message = {"stream_id": stream_id, "owner": owner, "control": msgspec.to_builtins(control)}
        replica = stream_id.partition("-")[0]
        try:
            return await self._ask(replica, message)
        except WeirError as error:
            if error.code != NOT_FOUND:
                raise
            producer = await self._producer(stream_id, owner)  # a durable stream may have been taken over
            if producer in (None, replica):
                raise
        return await self._ask(producer, message)

    async def _ask(self, replica: str, message: dict[str, Any]) -> dict[str, Any]:
        try:
            reply = await self.bus.send(replica, message, PATIENCE)
        except TimeoutError:
            raise _late() from None
        if reply is None:
            raise unknown(message["stream_id"])
        return reply

    async def _act(self, message: dict[str, Any]) -> dict[str, Any]:
        """Does here what `send` asks for, on whichever replica."""
        stream = self._pipeline.find(message["stream_id"])
        if stream is None or stream.owner != message["owner"]:
            raise unknown(message["stream_id"])
        control = msgspec.convert(message["control"], Control)
        if stream.durable and stream.ended and control.action != "feedback":
            raise unknown(stream.id)  # it may go on elsewhere, if this replica was taken for dead: the log knows
        position = await self.perform(stream, control)
        return {"stream_id": stream.id, "action": control.action, "position": position}

    async def perform(self, stream: Stream, control: Control) -> int:
        """Lets `control` take effect on a stream of this replica, and says at which position.

        Raises RequestError: 409 where it came too late, 504 where it takes too long.
        """
        if stream.ended and control.action != "feedback":
            raise RequestError(f"the stream has ended, at position {stream.position}", status=409, code="ended")
        effects: dict[Action, Callable[[], Awaitable[int]]] = {
            "cancel": lambda: stream.cancel(control.reason),
            "pause": lambda: stream.pause(control.seconds),
            "resume": stream.resume,
            "steer": lambda: stream.steer(control.instruction),
            "feedback": lambda: self._note(stream, control),
        }
        try:
            async with asyncio.timeout(HALF):
                return await effects[control.action]()
        except TimeoutError:
            raise _late() from None

    async def _note(self, stream: Stream, control: Control) -> int:
        position = stream.position if control.position is None else min(control.position, stream.position)
        feedback = Feedback(
            stream_id=stream.id,
            position=position,
            rating=control.rating,
            remark=control.remark,
            source=control.source,
        )
        await self._pipeline.note(stream, feedback)
        return position


def unknown(stream_id: str) -> RequestError:
    return RequestError(f"there is no stream {stream_id[:100]!r}", status=404, code=NOT_FOUND)


def _late() -> RequestError:
    return RequestError("it has not taken effect in time, and may yet", status=504, code="control_timeout")
