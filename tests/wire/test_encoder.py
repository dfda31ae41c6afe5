"""What holds for every format: whole server-sent events, and an end that cannot be taken for another."""

import json
from typing import Any

import pytest

from proxy.errors import Kind, NoAnswer, ProviderError
from proxy.events import Abort, Error, Event, Finish
from proxy.heading import Heading
from proxy.testing import says
from proxy.wire import KEEP_ALIVE, Encoder
from proxy.wire.native import NativeEncoder
from proxy.wire.openai import ChunkEncoder
from proxy.wire.openai_choices import ChoicesEncoder
from proxy.wire.ui import UIEncoder

FORMATS = ["openai", "choices", "native", "ui"]


def encoder(name: str) -> Encoder:
    if name == "openai":
        return ChunkEncoder(Heading("r1", "m", ["m"], include_usage=True))
    if name == "choices":
        return ChoicesEncoder(Heading("r1", "m", ["a", "b"], include_usage=True))
    return NativeEncoder() if name == "native" else UIEncoder("r1")


def data_of(stream: bytes) -> list[Any]:
    """What each server-sent event says: JSON, or `[DONE]`."""
    *frames, rest = stream.split(b"\n\n")
    assert not rest, f"not whole events: {stream!r}"
    assert all(frame.startswith(b"data: ") and b"\n" not in frame for frame in frames), f"not all is data: {stream!r}"
    return [frame[6:].decode() if frame == b"data: [DONE]" else json.loads(frame[6:]) for frame in frames]


def written(encoder: Encoder, events: list[Event]) -> list[Any]:
    return data_of(b"".join(map(encoder.encode, events)))


@pytest.mark.parametrize("name", FORMATS)
def test_a_text_arrives_whatever_is_in_it(name: str) -> None:
    text = 'line\n\ndata: [DONE]\r\n\u2028漢\U0001f600"\\\x00'
    assert json.dumps(text)[1:-1] in json.dumps(written(encoder(name), says(text))), "not the text that was said"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("last", [Error(message="it broke"), Abort(reason="bye")])
def test_a_stream_that_broke_does_not_look_done(name: str, last: Event) -> None:
    done, broke = written(encoder(name), says("a")), written(encoder(name), [*says("a")[:-1], last])
    assert done[-1] not in broke
    assert "finish" not in [event.get("type") for event in broke]
    assert ("it broke" if isinstance(last, Error) else "bye") in json.dumps(broke[-1])


@pytest.mark.parametrize("name", FORMATS)
def test_an_error_that_is_no_event_of_the_stream(name: str) -> None:
    error = NoAnswer({"a": ProviderError(Kind.CUT, "the line was cut")})
    (told,) = data_of(encoder(name).error(error))
    assert "the line was cut" in json.dumps(told)


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_stream_is_a_stream(name: str) -> None:
    assert written(encoder(name), [Finish()])


def test_a_keep_alive_is_a_comment() -> None:
    assert KEEP_ALIVE.startswith(b":")
    assert KEEP_ALIVE.count(b"\n") == 1, "OpenAI's SDKs take a blank line for an event"
    assert KEEP_ALIVE.endswith(b"\n")
    assert b"data" not in KEEP_ALIVE
