"""The messages on a WebSocket, as the guide writes them."""

from typing import Any

import msgspec
import pytest

from proxy.errors import RequestError
from proxy.events import Error, Event, Finish, TextDelta, Usage
from proxy.wire import frames


def said(text: str) -> Any:
    return msgspec.json.decode(text)


def test_what_the_guide_asks_is_read() -> None:
    message = frames.read('{"message_type":"chat_request","data":{"messages":[],"generator_mode":"standard"}}')
    assert (message.message_type, message.request_id) == ("chat_request", None)
    assert message.data == {"messages": [], "generator_mode": "standard"}


@pytest.mark.parametrize("kind", ["chat_request", "cancel", "pause", "resume", "feedback", "steer", "ping"])
def test_each_type_needs_neither_a_name_nor_data(kind: str) -> None:
    assert frames.read(f'{{"message_type":"{kind}"}}').message_type == kind


def test_fields_that_we_do_not_know_are_left_alone() -> None:
    assert frames.read(b'{"message_type":"ping","timestamp":1,"data":null}').data is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the message is not valid JSON"),
        ("hello", "the message is not valid JSON"),
        ("[]", "the message must be a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ("{}", "message_type: "),
        ('{"message_type":"hello"}', "message_type: "),
        ('{"message_type":"ping","data":[]}', "data: "),
        ('{"message_type":"ping","request_id":7}', "request_id: "),
        ('{"message_type":"ping","request_id":""}', "request_id: "),
        ('{"message_type":"ping","request_id":"' + "x" * 129 + '"}', "request_id: "),
        (b'{"message_type":"\xff"}', "the message is not valid JSON"),
    ],
)
def test_what_is_wrong_is_named(text: str | bytes, problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        frames.read(text)
    assert problem in caught.value.message


def test_a_name_may_have_128_characters_of_any_kind() -> None:
    name = "é" * 128
    assert frames.read(f'{{"message_type":"ping","request_id":"{name}"}}').request_id == name


def test_the_greeting() -> None:
    data = {"user_id": "ann", "session_id": "s1", "connection_id": "c1"}
    assert said(frames.connected("ann", "s1", "c1")) == {"message_type": "connected", "data": data}


@pytest.mark.parametrize(
    ("event", "kind", "data"),
    [
        (TextDelta(content="Hé", source="main", seq=3), "text-delta", {"content": "Hé", "source": "main", "seq": 3}),
        (Error(message="no", code="c"), "error", {"error": "no", "code": "c", "source": "", "seq": 0}),
        (
            Finish(usage=Usage(input_tokens=1, output_tokens=2), seq=9),
            "finish",
            {"usage": {"input_tokens": 1, "output_tokens": 2}, "source": "", "seq": 9},
        ),
    ],
    ids=["text-delta", "error", "finish"],
)
def test_an_event(event: Event, kind: str, data: dict[str, Any]) -> None:
    told = {"event_type": kind, "event_data": data}
    assert said(frames.stream_event("r1", event)) == {
        "message_type": "stream_event",
        "request_id": "r1",
        "data": told,
    }


def test_what_came_of_a_control() -> None:
    told = {"message_type": "control_result", "request_id": "r1", "data": {"action": "pause", "position": 7}}
    assert said(frames.control_result("r1", "pause", 7)) == told


def test_a_message_that_was_not_obeyed() -> None:
    error = RequestError("seconds: too many", param="seconds")
    told = {"message": "seconds: too many", "code": "invalid_request"}
    assert said(frames.error(RequestError(told["message"]))) == {"message_type": "error", "data": told}
    assert said(frames.error(error, "r1", "pause")) == {
        "message_type": "error",
        "request_id": "r1",
        "data": {**told, "param": "seconds", "about": "pause"},
    }


def test_a_pong() -> None:
    assert said(frames.pong()) == {"message_type": "pong", "data": {}}
    assert said(frames.pong("p1")) == {"message_type": "pong", "request_id": "p1", "data": {}}


def test_an_event_that_can_be_come_back_to() -> None:
    told = said(frames.stream_event("r1", TextDelta(content="a", seq=3), "1-3-9f3a01bc"))["data"]
    assert told == {
        "event_type": "text-delta",
        "event_data": {"content": "a", "source": "", "seq": 3},
        "position": "1-3-9f3a01bc",
    }


def test_a_durable_stream_tells_its_id() -> None:
    told = {"message_type": "stream_opened", "request_id": "r1", "data": {"stream_id": "s1"}}
    assert said(frames.stream_opened("r1", "s1")) == told


def test_what_a_client_wants_to_read_on() -> None:
    assert frames.resumed({"stream_id": "s1", "after": "1-3-9f3a01bc"}) == frames.Resumed("s1", "1-3-9f3a01bc")
    assert frames.resumed({"stream_id": "s1"}).after is None


@pytest.mark.parametrize(
    ("data", "param"),
    [({"stream_id": 1}, "stream_id"), ({"stream_id": "s", "after": 3}, "after"), ({"stream_id": "s", "x": 1}, "x")],
)
def test_a_wrong_field_of_it_is_named(data: dict[str, object], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        frames.resumed(data)
    assert caught.value.param == param
