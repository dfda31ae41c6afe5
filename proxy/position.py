"""Where a reader of a durable stream is: what stands in SSE's `id:` lines, and comes back as `Last-Event-ID`."""

import re
from typing import NamedTuple

from proxy.errors import RequestError

_WRITTEN = re.compile(r"([1-9][0-9]{0,9})-([1-9][0-9]{0,14})(?:\.([1-9][0-9]{0,5}))?-([0-9a-f]{8})")


class Position(NamedTuple):
    """After event `seq`, which was written in `epoch`; `nonce` tells that epoch from one that a Redis forgot.

    `part`: after that many of the SSE blocks in which a format writes the event; 0 is all of them.
    """

    epoch: int
    seq: int
    nonce: str
    part: int = 0

    def covers(self, seq: int) -> bool:
        """Whether who is here has had all of event `seq`."""
        return seq < self.seq or (seq == self.seq and not self.part)

    def __str__(self) -> str:
        part = f".{self.part}" if self.part else ""
        return f"{self.epoch}-{self.seq}{part}-{self.nonce}"


START = Position(0, 0, "")


def read_position(text: str | None) -> Position:
    """The position that `text` names; the start for none, an empty one and `0`. Raises RequestError (400)."""
    if text is None or text in ("", "0"):
        return START
    found = _WRITTEN.fullmatch(text)
    if found is None:
        told = f"{text[:100]!r} is no position: send one as it came in an `id:` line, such as 1-17-9f3a01bc, or 0"
        raise RequestError(told, code="invalid_position", param="after")
    epoch, seq, part, nonce = found.groups()
    return Position(int(epoch), int(seq), nonce, int(part or 0))
