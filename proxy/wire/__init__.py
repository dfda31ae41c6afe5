"""How streams are written down for a client."""

from collections.abc import Mapping
from typing import Protocol

from proxy.errors import WeirError
from proxy.events import Event

# A comment, and no blank line: OpenAI's SDKs take one for an event without data (in Python, once there was an id).
KEEP_ALIVE = b": keep-alive\n"


class Encoder(Protocol):
    """Writes one stream in one format, as server-sent events. `content_headers` go on the answer besides the usual."""

    content_headers: Mapping[str, str]

    def encode(self, event: Event) -> bytes:
        """The bytes that `event` adds to the stream: whole server-sent events, or nothing."""

    def error(self, error: WeirError) -> bytes:
        """What to write, and nothing after it, where a stream breaks without an event that says so."""
