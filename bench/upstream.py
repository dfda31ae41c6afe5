"""A fake upstream that costs little: `python -m bench.upstream PORT`.

It reads of a request what it is to answer: the path says on whose wire (OpenAI's, Anthropic's, Gemini's), and the words
`pace=MILLISECONDS tokens=COUNT` in its body in how many pieces; all else is not parsed. With the word `stamped`, each
token says when it left: `@` and the microseconds of the monotonic clock, which is one for all processes of a machine.
"""

import asyncio
import re
import sys
import time
from typing import cast

import uvloop

ANSWERS = re.compile(rb"pace=(\d+) tokens=(\d+)")
TOKEN = b"tick"  # what is said in each piece, after a blank; a word that stands nowhere else

_OPENAI = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"fake",'
    b'"choices":[{"index":0,"delta":{%b},"finish_reason":%b}]}\n\n'
)
_USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"fake","choices":[],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":50,"total_tokens":59}}\n\ndata: [DONE]\n\n'
)
_ANTHROPIC = b"event: %b\ndata: %b\n\n"
_GEMINI = (
    b'data: {"candidates":[{"content":{"parts":[{"text":"%b"}],"role":"model"},"index":0%b}],'
    b'"modelVersion":"gemini-2.5-flash","responseId":"fake",'
    b'"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":50,"totalTokenCount":59}}\r\n\r\n'
)
_WHOLE = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"fake","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":" tick"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}'
)
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_WHOLE), _WHOLE)


class OpenAI:
    """One wire: what is written before the tokens, for a token, and after them."""

    begin = b""
    end = _OPENAI % (b"", b'"stop"') + _USAGE

    @staticmethod
    def token(text: bytes) -> bytes:
        return _OPENAI % (b'"content":"%b"' % text, b"null")


class Anthropic:
    begin = _ANTHROPIC % (
        b"message_start",
        b'{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"fake",'
        b'"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":9,"output_tokens":1}}}',
    ) + _ANTHROPIC % (
        b"content_block_start",
        b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
    )
    end = (
        _ANTHROPIC % (b"content_block_stop", b'{"type":"content_block_stop","index":0}')
        + _ANTHROPIC
        % (
            b"message_delta",
            b'{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":50}}',
        )
        + _ANTHROPIC % (b"message_stop", b'{"type":"message_stop"}')
    )

    @staticmethod
    def token(text: bytes) -> bytes:
        said = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}' % text
        return _ANTHROPIC % (b"content_block_delta", said)


class Gemini:
    begin = b""
    end = _GEMINI % (b"", b',"finishReason":"STOP"')

    @staticmethod
    def token(text: bytes) -> bytes:
        return _GEMINI % (text, b"")


Wire = type[OpenAI] | type[Anthropic] | type[Gemini]


def wire_of(head: bytes) -> Wire:
    path = head[: head.find(b"\r\n")]
    return Anthropic if b"/messages" in path else Gemini if b"streamGenerateContent" in path else OpenAI


class Upstream(asyncio.Protocol):
    """One connection, and one request after the other on it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, blank, body = self._read.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if not blank or len(body) < length:
            return
        self._read = b""
        wire = wire_of(head)
        if wire is OpenAI and b'"stream":true' not in body.replace(b" ", b""):
            self._transport.write(_JSON)
            return
        told = ANSWERS.search(body)
        pace, tokens = (int(told[1]) / 1000, int(told[2])) if told else (0.0, 1)
        if not pace:
            said = wire.begin + wire.token(b" " + TOKEN) * tokens + wire.end
            self._transport.write(_STREAM + _chunk(said) + b"0\r\n\r\n")
            return
        self._transport.write(_STREAM + (_chunk(wire.begin) if wire.begin else b""))
        token = None if b"stamped" in body else _chunk(wire.token(b" " + TOKEN))
        self._loop = asyncio.get_running_loop()
        self._say(wire, token, pace, self._loop.time(), tokens)

    def _say(self, wire: Wire, token: bytes | None, pace: float, due: float, left: int) -> None:
        """Says one token, at the time at which it is due, however late the one before it was."""
        if self._transport.is_closing():
            return
        if left:
            self._transport.write(token or _chunk(wire.token(b" %b@%d" % (TOKEN, time.monotonic_ns() // 1000))))
            due += pace
            self._loop.call_at(due, self._say, wire, token, pace, due, left - 1)
        else:
            self._transport.write(_chunk(wire.end) + b"0\r\n\r\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
