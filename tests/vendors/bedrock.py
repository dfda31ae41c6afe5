"""Amazon Bedrock's ConverseStream: signed requests, answered in AWS's binary event stream.

https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html describes the frames.
"""

import json
import struct
from collections.abc import Mapping
from zlib import crc32

from tests.vendors.fake import Answer, FakeVendor, Json, Request

_BEGUN: list[Json] = [
    {"messageStart": {"role": "assistant"}},
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Hel"}}},
]
_END: list[Json] = [
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "lo"}}},
    {"contentBlockStop": {"contentBlockIndex": 0}},
    {"messageStop": {"stopReason": "end_turn"}},
    {
        "metadata": {
            "usage": {"inputTokens": 12, "outputTokens": 2, "totalTokens": 14, "cacheReadInputTokens": 5},
            "metrics": {"latencyMs": 9},
        }
    },
]

ANSWERS: Mapping[str, Answer] = {
    "text": Answer([*_BEGUN, *_END]),
    "tools": Answer(
        [
            *_BEGUN[:1],
            {"contentBlockStart": {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "t1", "name": "now"}}}},
            {"contentBlockStop": {"contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "tool_use"}},
        ]
    ),
    "cut": Answer(_BEGUN),
    "hang": Answer(_BEGUN, ending="hang"),
    "error_midway": Answer([*_BEGUN, {"!serviceUnavailableException": {"message": "Bedrock is overloaded"}}]),
    "model_failed": Answer(status=424, error={"message": "The model has failed. Retry your request"}),
    "rate_limit": Answer(status=429, error={"message": "Too many requests, please wait before trying again"}),
}


class FakeBedrock(FakeVendor):
    """Refuses a request that is not signed."""

    path = "/model/{model}/converse-stream"
    content_type = "application/vnd.amazon.eventstream"
    answers = ANSWERS

    def fault(self, request: Request) -> Answer | None:
        signed = request.headers.get("authorization", "").startswith("AWS4-HMAC-SHA256 Credential=")
        return None if signed else Answer(status=403, error={"message": "Missing Authentication Token"})

    def frame(self, event: Json) -> bytes:
        ((name, payload),) = event.items()
        kind = "exception" if name.startswith("!") else "event"
        headers = {f":{kind}-type": name.lstrip("!"), ":content-type": "application/json", ":message-type": kind}
        return _frame(b"".join(_header(*header) for header in headers.items()), json.dumps(payload).encode())


def _header(name: str, value: str) -> bytes:
    return struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()


def _frame(headers: bytes, payload: bytes) -> bytes:
    """Lengths, their checksum, headers, payload, and the checksum of it all."""
    lengths = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = lengths + struct.pack("!I", crc32(lengths)) + headers + payload
    return message + struct.pack("!I", crc32(message))
