"""How streams are written down for a client."""

from collections.abc import Mapping
from typing import Protocol

from proxy.errors import WeirError
from proxy.events import Event

KEEP_ALIVE = b": keep-alive\n\n"  # a comment: whatever the format, no client takes it for an event


class Encoder(Protocol):
    """Writes one stream in one format, as server-sent events. `content_headers` go on the answer besides the usual."""

    content_headers: Mapping[str, str]

    def encode(self, event: Event) -> bytes:
        """The bytes that `event` adds to the stream: whole server-sent events, or nothing."""

    def error(self, error: WeirError) -> bytes:
        """What to write, and nothing after it, where a stream breaks without an event that says so."""
