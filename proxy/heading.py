"""What every format has to know of a stream before its first event."""

import time

import msgspec


class Heading(msgspec.Struct, omit_defaults=True):
    """Kept with a durable stream, so that whoever reads it later sees it written down as its first reader did.

    `sources` are the names of those who answer, `created` is in seconds since 1970, `message_id` the AI SDK's id of the
    message (default: the request's), `calls` those of the tool calls that the message has already, `ui` the version of
    that SDK by which it is read, at least.
    """

    request_id: str
    model: str
    sources: list[str]
    include_usage: bool = False
    created: int = msgspec.field(default_factory=lambda: int(time.time()))
    message_id: str = ""
    calls: list[str] = []
    ui: int = 5

    @property
    def several(self) -> bool:
        return len(self.sources) > 1
