"""A fake upstream that costs little: it answers every POST with the same bytes, paced if it streams.

`python -m bench.upstream PORT`. It reads requests without parsing them, but for `"stream":true`.
"""

import asyncio
import sys

CHUNKS, PACE = 50, 0.02  # chunks a stream, seconds between them
_HEAD = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"fake",'
    b'"choices":[{"index":0,'
)
_TOKEN = _HEAD + b'"delta":{"content":" token"},"finish_reason":null}]}\n\n'
_END = _HEAD + b'"delta":{},"finish_reason":"stop"}]}\n\n'
_USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"fake","choices":[],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":50,"total_tokens":59}}\n\ndata: [DONE]\n\n'
)
_WHOLE = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"fake","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":" token"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}'
)
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_WHOLE), _WHOLE)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_AT_ONCE = _STREAM + _chunk(_TOKEN) + _chunk(_END) + _chunk(_USAGE) + b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection. A body that holds the word `paced` is answered with CHUNKS tokens, one every PACE seconds."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, blank, body = self._read.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if not blank or len(body) < length:
            return
        self._read = b""
        if b'"stream":true' not in body.replace(b" ", b""):
            self._transport.write(_JSON)
        elif b"paced" in body:
            self._transport.write(_STREAM)
            self._token(CHUNKS)
        else:
            self._transport.write(_AT_ONCE)

    def _token(self, left: int) -> None:
        if left:
            self._transport.write(_chunk(_TOKEN))
            asyncio.get_running_loop().call_later(PACE, self._token, left - 1)
        else:
            self._transport.write(_chunk(_END) + _chunk(_USAGE) + b"0\r\n\r\n")


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
