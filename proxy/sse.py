"""Server-sent events, read: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream"""

MAX_EVENT = 16 * 1024 * 1024  # bytes; a provider that sends more without a blank line is not speaking SSE


class SSEDecoder:
    """Cuts a byte stream into the `data` of its events. Lines may end in LF, CRLF or CR, and be cut anywhere."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> list[bytes]:
        """The data of every event that `data` completes. Raises ValueError past MAX_EVENT."""
        if not self._rest and _is_one_event(data):  # a token, at the pace at which models speak
            self._at_start = self._after_cr = False
            return [data[6:-2]]
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if self._rest:
            searched = len(self._rest) - 1
            self._rest += data
            if self._rest.find(b"\n\n", searched) < 0:
                if len(self._rest) > MAX_EVENT:
                    raise ValueError(f"an event of more than {MAX_EVENT} bytes")
                return []
            data = bytes(self._rest)
        *blocks, rest = data.split(b"\n\n")
        self._rest = bytearray(rest)
        found = []
        for block in blocks:
            if self._at_start:
                block = block.removeprefix(b"\xef\xbb\xbf")
                self._at_start = False
            if block.startswith(b"data: ") and b"\n" not in block:  # all that OpenAI's wire ever sends
                found.append(block[6:])
            elif (payload := _data(block)) is not None:
                found.append(payload)
        return found


def _is_one_event(data: bytes) -> bool:
    return (
        data.startswith(b"data: ")
        and data.endswith(b"\n\n")
        and data.find(b"\n") == len(data) - 2
        and b"\r" not in data
    )


def _data(block: bytes) -> bytes | None:
    """The data lines of one event, joined; None where it has none (comments, a lone `event:` or `id:`).

    llama.cpp, until the autumn of 2025, said an error in a field `error`, which the standard has passed over.
    """
    fields = [line.partition(b":") for line in block.split(b"\n")]
    lines = [value.removeprefix(b" ") for name, _, value in fields if name == b"data"]
    lines = lines or [b'{"error":%b}' % value for name, _, value in fields if name == b"error"]
    return b"\n".join(lines) if lines else None
