"""A request's body: what is refused, naming the field, and what passes untouched."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import RequestError
from proxy.provider import ProviderConfig, Retry, Timeouts
from proxy.request import ChatRequest, parse_object

LEAST: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def parse(**fields: Any) -> ChatRequest:
    return ChatRequest(parse_object(json.dumps({**LEAST, **fields})), "r1")


NOT_JSON = {
    "nothing": b"",
    "half": b'{"model": "m"',
    "text": b"model=m",
    "NaN": b'{"model": "m", "temperature": NaN}',
    "Infinity": b'{"model": "m", "temperature": Infinity}',
    "a number beyond floats": b'{"model": "m", "x": 1e999}',
    "a lone surrogate": b'{"model": "\\ud800", "messages": [{"role": "user"}]}',
    "not UTF-8": b'{"model": "\xff", "messages": [{"role": "user"}]}',
    "two values": b"{} {}",
    "a trailing comma": b'{"model": "m",}',
    "a list": b"[]",
    "null": b"null",
    "a string": b'"model"',
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep within a field": b'{"model":"m","messages":[{"role":"u"}],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "too deep for what comes after": b'{"model":"m","messages":[{"role":"u"}],"x":' + b"[" * 300 + b"]" * 300 + b"}",
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_no_json_object_is_refused(name: str) -> None:
    with pytest.raises(RequestError) as raised:
        parse_object(NOT_JSON[name])
    assert (raised.value.status, raised.value.code) == (400, "invalid_json")
    assert "body" in raised.value.message
    assert len(raised.value.message) < 200


MISSING = ...  # which has the same repr in every process, and so in the ids of tests
# (the field that is wrong, its value, the field that the error names)
WRONG: list[tuple[str, Any, str]] = [
    ("model", MISSING, "model"),
    ("model", "", "model"),
    ("model", 1, "model"),
    ("model", None, "model"),
    ("messages", MISSING, "messages"),
    ("messages", None, "messages"),
    ("messages", [], "messages"),
    ("messages", {}, "messages"),
    ("messages", "hi", "messages"),
    ("messages", ["hi"], "messages[0]"),
    ("messages", [{"role": "user"}, {}], "messages[1].role"),
    ("messages", [{"role": 1}], "messages[0].role"),
    ("stream", "yes", "stream"),
    ("stream", 1, "stream"),
    ("stream_options", [], "stream_options"),
    ("stream_options", {"include_usage": "yes"}, "stream_options.include_usage"),
    ("n", 0, "n"),
    ("n", -1, "n"),
    ("n", 1.5, "n"),
    ("n", "2", "n"),
    ("n", True, "n"),
    ("max_tokens", 0, "max_tokens"),
    ("max_tokens", -5, "max_tokens"),
    ("max_completion_tokens", -5, "max_completion_tokens"),
    ("temperature", -0.1, "temperature"),
    ("temperature", "hot", "temperature"),
    ("top_p", -1, "top_p"),
    ("tools", {}, "tools"),
    ("tools", ["f"], "tools[0]"),
    ("user", 5, "user"),
    ("weir", True, "weir"),
    ("weir", {"mood": "good"}, "weir.mood"),
    ("weir", {"fallback": "no"}, "weir.fallback"),
    ("weir", {"retry": 3}, "weir.retry"),
    ("weir", {"retry": {"max_attempts": 0}}, "weir.retry.max_attempts"),
    ("weir", {"retry": {"max_attempts": "3"}}, "weir.retry"),
    ("weir", {"retry": {"attempts": 1}}, "weir.retry.attempts"),
    ("weir", {"timeouts": {"total": -1}}, "weir.timeouts.total"),
    ("weir", {"timeouts": {"patience": 1}}, "weir.timeouts.patience"),
]


@pytest.mark.parametrize(("field", "value", "named"), WRONG, ids=lambda value: repr(value)[:40])
def test_a_wrong_field_is_refused_by_name(field: str, value: Any, named: str) -> None:
    body = {name: kept for name, kept in {**LEAST, field: value}.items() if kept is not MISSING}
    with pytest.raises(RequestError) as raised:
        ChatRequest(parse_object(json.dumps(body)), "r1")
    error = raised.value
    assert (error.status, error.code) == (400, "invalid_request")
    assert (error.param or "").startswith(named), f"{error.param!r} is named in place of {named!r}: {error.message}"
    assert error.message.startswith(named), f"the message does not begin with the field: {error.message!r}"


def test_the_least_request() -> None:
    request = parse()
    assert (request.model, request.messages, request.tools) == ("m", LEAST["messages"], None)
    assert (request.stream, request.include_usage, request.fields) == (False, False, {})
    assert request.options.fallback


def test_null_is_as_good_as_absent() -> None:
    request = parse(stream=None, stream_options=None, n=None, tools=None, weir=None, temperature=None)
    assert (request.stream, request.include_usage, request.tools) == (False, False, None)


def test_all_fields_but_ours_pass_untouched() -> None:
    theirs = {
        "n": 2,
        "stream_options": {"include_usage": True, "x": 1},
        "self": 1,
        "messages_": 2,
        "unknown": {"deep": [1, {"x": None}]},
        "big": 123456789012345678901234567890,
        "seed": -1,
    }
    request = parse(tools=[{"type": "function"}], stream=True, weir={"fallback": False}, **theirs)
    assert request.fields == theirs
    assert request.tools == [{"type": "function"}]
    assert (request.stream, request.include_usage, request.options.fallback) == (True, True, False)


def test_messages_pass_untouched() -> None:
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}], "x": "\u2028é"}]
    assert parse(messages=messages).messages == messages


def test_a_reasonable_depth_passes() -> None:
    assert parse(x=json.loads("[" * 90 + "]" * 90)).fields


def test_a_request_overrides_some_of_a_providers_patience() -> None:
    config = ProviderConfig(
        provider_id="a",
        provider_type="openai",
        model_name="m",
        retry=Retry(max_attempts=5),
        timeouts=Timeouts(total=50),
    )
    options = parse(weir={"retry": {"initial": 1}, "timeouts": {"first_token": 2}}).options
    assert (options.retry_of(config).max_attempts, options.retry_of(config).initial) == (5, 1)
    assert (options.timeouts_of(config).total, options.timeouts_of(config).first_token) == (50, 2)
    assert parse().options.retry_of(config) is config.retry


def test_the_limit_of_a_connection_is_not_a_requests_to_set() -> None:
    """Connections are shared: the adapter keeps that limit, and would not know of a request's."""
    with pytest.raises(RequestError) as caught:
        parse(weir={"timeouts": {"connect": 2}})
    assert caught.value.param == "weir.timeouts.connect"


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner))
NAMES = st.sampled_from(["model", "messages", "stream", "n", "tools", "weir", "stream_options", "user", "other"])


@settings(max_examples=50)
@given(st.dictionaries(NAMES, JSON | st.dictionaries(st.sampled_from(["retry", "timeouts", "role"]), JSON)))
def test_no_json_raises_anything_else(body: dict[str, Any]) -> None:
    refused = None
    try:
        ChatRequest(parse_object(json.dumps({**LEAST, **body})), "r1")
    except RequestError as error:
        refused = error
    assert refused is None or refused.param, f"the error names no field: {refused}"


def test_a_durable_stream_is_asked_for() -> None:
    plain = parse().options
    assert (plain.durable, plain.detached, plain.recovery) == (None, 60, "fail")
    asked = parse(weir={"durable": True, "detached": 0, "recovery": "continue"}).options
    assert (asked.durable, asked.detached, asked.recovery) == (True, 0, "continue")
    assert parse(weir={"durable": False}).options.durable is False, "`no` is not the same as nothing"


@pytest.mark.parametrize(
    ("weir", "param"),
    [
        ({"durable": "yes"}, "weir.durable"),
        ({"detached": -1}, "weir.detached"),
        ({"detached": 86401}, "weir.detached"),
        ({"recovery": "retry"}, "weir.recovery"),
        ({"recovery": "restart", "providers": ["a", "b"]}, "weir.recovery"),
    ],
)
def test_what_is_wrong_with_it_is_named(weir: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(weir=weir)
    assert caught.value.param == param


def test_a_request_that_is_kept_is_the_same_on_another_replica() -> None:
    fields = {"tools": [{"type": "function"}], "temperature": 0.5, "x_new": {"a": [1]}, "user": "u", "stream": True}
    weir = {"mode": "chunked", "config": {"size": 3}, "session_id": "s", "history": True, "retry": {"max_attempts": 1}}
    asked = parse(**fields, stream_options={"include_usage": True}, weir={**weir, "recovery": "restart"})
    asked.owner, asked.user_id, asked.options_in = "me", "u2", "generator_"
    kept = ChatRequest.kept(asked.keep())
    assert vars(kept) == vars(asked)
