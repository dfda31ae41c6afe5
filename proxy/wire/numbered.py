"""The `id:` lines of a stream that can be come back to, and what a reader who comes back has had already.

https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header
"""

from collections.abc import Callable

from proxy.errors import WeirError
from proxy.events import Event
from proxy.position import Position
from proxy.wire import Encoder


class Numbered:
    """Puts its position on each server-sent event that `encoder` writes, and leaves out those up to `after`.

    All events of the stream must pass through, because the encoder has to know those that are left out. `at` gives the
    position of the one that is being written. Where a format writes it in several blocks, each block is a `part` of it.
    """

    def __init__(self, encoder: Encoder, after: Position, at: Callable[[], Position]):
        self._encoder = encoder
        self._after = after
        self._at = at
        self.content_headers = encoder.content_headers

    def encode(self, event: Event) -> bytes:
        data, after = self._encoder.encode(event), self._after
        if after.covers(event.seq):
            return b""
        place = self._at()
        if data.find(b"\n\n") == len(data) - 2:  # one block, as nearly always
            return b"id: %b\n%b" % (str(place).encode(), data)
        blocks = data.split(b"\n\n")[:-1]
        last = len(blocks)
        first = after.part if event.seq == after.seq and after.part < last else 0  # or it is another format's
        return b"".join(
            b"id: %b\n%b\n\n" % (str(place._replace(part=part if part < last else 0)).encode(), block)
            for part, block in enumerate(blocks, start=1)
            if part > first
        )

    def error(self, error: WeirError) -> bytes:
        """Without an id: it is not in the log, and whoever comes back goes on after what is."""
        return self._encoder.error(error)
