"""The guide's names for what a chat request says."""

from typing import Any

import pytest

from proxy.errors import RequestError
from proxy.streaming_request import StreamingRequest

HI = [{"role": "user", "content": "hi"}]


def read(**fields: Any) -> StreamingRequest:
    return StreamingRequest({"messages": HI, **fields}, "r1", lambda: "preferred")


def test_who_answers() -> None:
    assert read().chat.sources == ["preferred"]
    assert read(model="fast").chat.sources == ["fast"]
    assert read(provider_id="a", model="fast").chat.sources == ["a"]
    assert read(provider_ids=["a", "b"]).chat.sources == ["a", "b"]


def test_a_mode_and_its_options() -> None:
    options = read(generator_mode="buffered", generator_config={"buffer_size": 10}).chat.options
    assert (options.mode, options.config) == ("buffered", {"buffer_size": 10})
    assert read().chat.options.mode == "standard"


def test_history_is_on_where_there_is_a_session() -> None:
    assert read(session_id="s").chat.options.history
    assert not read(session_id="s", history=False).chat.options.history
    assert not read().chat.options.history


def test_what_is_not_its_own_goes_to_the_provider() -> None:
    asked = read(temperature=0.5, x_new=1, tools=[{"type": "function"}], user_id="u", stream_format="ui")
    assert asked.chat.fields == {"temperature": 0.5, "x_new": 1}
    assert asked.chat.tools == [{"type": "function"}]
    assert (asked.format, asked.user_id) == ("ui", "u")
    assert asked.chat.stream, "the streaming API streams"


def test_what_reads_the_ai_sdks_parts_is_known_to_whoever_writes_them() -> None:
    assert read().chat.heading().ui == 5, "what every version reads"
    asked = read(ui=7)
    assert asked.chat.heading("m1").ui == 7
    assert "ui" not in asked.chat.fields, "it is sent to the provider"


def test_retries_and_limits_are_asked_for_as_on_the_openai_api() -> None:
    assert read(weir={"retry": {"max_attempts": 1}, "fallback": False}).chat.options.fallback is False


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"stream_format": "xml"}, "stream_format"),
        ({"generator_mode": 1}, "generator_mode"),
        ({"generator_config": []}, "generator_config"),
        ({"provider_ids": "a"}, "provider_ids"),
        ({"provider_ids": ["a", "a"]}, "provider_ids"),
        ({"provider_ids": [f"p{n}" for n in range(17)]}, "provider_ids"),
        ({"provider_ids": ["a", "b"], "n": 2}, "provider_ids"),
        ({"session_id": "a b"}, "session_id"),
        ({"session_id": ""}, "session_id"),
        ({"user_id": ""}, "user_id"),
        ({"history": "yes"}, "history"),
        ({"temperature": -1}, "temperature"),
        ({"ui": 4}, "ui"),
        ({"weir": {"recovery": "hope"}}, "weir.recovery"),
        ({"provider_ids": ["a", "b"], "weir": {"recovery": "restart"}}, "weir.recovery"),
        ({"weir": {"nonsense": 1}}, "weir.nonsense"),
        ({"weir": 1}, "weir"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(**fields)
    assert caught.value.param == param
    assert caught.value.status == 400
