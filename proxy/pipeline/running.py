"""An answer on its way, whoever produces it: what its reader needs of it, over HTTP, on a WebSocket, in a program."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from proxy.events import Event
from proxy.journey import Journey
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.stream import Stream
from proxy.request import ChatRequest


class Running(Protocol):
    """`id` is what controls find it by, `journey` what becomes of the reading."""

    id: str
    journey: Journey

    def events(self) -> AbstractAsyncContextManager[AsyncGenerator[Event, None]]:
        """Entered once; raises what keeps it from beginning. Leaving the block ends what nobody else reads."""

    def stop(self, reason: str) -> None:
        """Ends the reading; `reason` is told to whoever still listens."""

    @property
    def position(self) -> str:
        """Where a reader may go on after the event that was given last; empty if nowhere."""

    def has_had(self, event: Event) -> bool:
        """Whether its reader told that it has got this event before."""

    def headers(self) -> dict[str, str]:
        """What every answer says of itself."""


class Live:
    """An answer that lives as long as its reader does."""

    position = ""

    def __init__(self, pipeline: Pipeline, request: ChatRequest, stream: Stream):
        self.id, self.journey = stream.id, stream.journey
        self.stream = stream
        self._pipeline = pipeline
        self._request = request

    def events(self) -> AbstractAsyncContextManager[AsyncGenerator[Event, None]]:
        return self._pipeline.answer(self._request, self.stream)

    def stop(self, reason: str) -> None:
        self.stream.stop(reason)

    def has_had(self, event: Event) -> bool:
        return False

    def headers(self) -> dict[str, str]:
        return {**self.journey.headers(), "x-weir-stream-id": self.id}
