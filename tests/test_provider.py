"""A provider's registration: what is refused, and who may see what of it."""

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from proxy.errors import redact
from proxy.provider import ProviderConfig, texts

LEAST: dict[str, Any] = {"provider_id": "a", "provider_type": "openai", "model_name": "m"}


def made(**fields: Any) -> ProviderConfig:
    return ProviderConfig(**{**LEAST, **fields})


def test_three_names_are_enough() -> None:
    config = made()
    assert (config.retry.max_attempts, config.timeouts.first_token, config.priority) == (3, 120, 1)
    assert config.context_window is None
    assert (config.durable, config.prefill) == (False, None)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"durable": None}, "durable"),
    ({"durable": "perhaps"}, "durable"),
    ({"prefill": "perhaps"}, "prefill"),
    ({"provider_id": ""}, "provider_id"),
    ({"provider_id": "a/b"}, "provider_id"),
    ({"provider_id": ".."}, "provider_id"),
    ({"provider_id": "a\n"}, "provider_id"),
    ({"provider_id": "a" * 65}, "provider_id"),
    ({"provider_id": "health"}, "provider_id: .*the name of a route"),
    ({"provider_id": "register"}, "provider_id: .*the name of a route"),
    ({"provider_type": ""}, "provider_type"),
    ({"provider_type": "openai_compatible"}, "base_url is missing"),
    ({"model_name": ""}, "model_name"),
    ({"model_name": "m" * 201}, "model_name"),
    ({"models": "m"}, "models"),
    ({"models": [""]}, "models.0"),
    ({"api_key": "sk-line\n"}, "api_key: .*printable ASCII"),
    ({"api_key": "sk-é"}, "api_key: .*printable ASCII"),
    ({"base_url": "ftp://host"}, "base_url: .*http"),
    ({"base_url": "host:80/v1"}, "base_url: .*http"),
    ({"base_url": "http:///v1"}, "base_url: .*http"),
    ({"base_url": "http://[::1"}, "base_url"),
    ({"base_url": "http://host:port/v1"}, "base_url"),
    ({"base_url": "http://host:99999/v1"}, "base_url"),
    ({"base_url": "http://ho st/v1"}, "base_url: .*blank"),
    ({"base_url": "http://user@host/v1"}, "base_url: .*password"),
    ({"base_url": "http://user:pass@host/v1"}, "base_url: .*password"),
    ({"base_url": "http://host/v1?key=abc"}, "base_url: .*query"),
    ({"base_url": "http://host/v1#part"}, "base_url: .*query"),
    ({"headers": {"": "x"}}, "headers: .*not the name"),
    ({"headers": {"a b": "x"}}, "headers: .*not the name"),
    ({"headers": {"a:": "x"}}, "headers: .*not the name"),
    ({"headers": {"é": "x"}}, "headers: .*not the name"),
    ({"headers": {"a": "x\r\nb: y"}}, "headers: .*'a'.*printable ASCII"),
    ({"headers": {"a": "x\0"}}, "headers: .*'a'.*printable ASCII"),
    ({"headers": {"a": "x\x1b"}}, "headers: .*'a'.*printable ASCII"),
    ({"headers": {"a": 1}}, "headers.a"),
    ({"context_window": 255}, "context_window"),
    ({"context_window": 10**10}, "context_window"),
    ({"context_window": "large"}, "context_window"),
    ({"priority": -1}, "priority"),
    ({"priority": 1001}, "priority"),
    ({"retry": {"max_attempts": 0}}, "retry.max_attempts"),
    ({"retry": {"max_attempts": 11}}, "retry.max_attempts"),
    ({"retry": {"initial": -0.1}}, "retry.initial"),
    ({"retry": {"maximum": float("inf")}}, "retry.maximum"),
    ({"retry": {"attempts": 2}}, "retry.attempts"),
    ({"timeouts": {"connect": 0}}, "timeouts.connect"),
    ({"timeouts": {"first_token": float("nan")}}, "timeouts.first_token"),
    ({"timeouts": {"between_tokens": 86401}}, "timeouts.between_tokens"),
    ({"timeouts": {"total": "soon"}}, "timeouts.total"),
    ({"drop_params": "sometimes"}, "drop_params"),
    ({"params": []}, "params"),
    ({"unknown": 1}, "unknown"),
]


@pytest.mark.parametrize(("fields", "expected"), REFUSED, ids=lambda value: repr(value)[:50])
def test_a_mistake_is_refused_by_name(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as raised:
        made(**fields)
    told = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in raised.value.errors()]
    assert len(told) == 1, f"one mistake was told as {told}"
    assert re.search(expected, told[0]), f"{told[0]!r} does not say {expected!r}"


@pytest.mark.parametrize("name", LEAST)
def test_each_of_the_three_names_is_needed(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        ProviderConfig(**{key: value for key, value in LEAST.items() if key != name})


@pytest.mark.parametrize(
    "fields",
    [
        {"provider_type": "openai_compatible"},
        {"api_key": "sk-hidden\n"},
        {"api_key": ["sk-hidden"]},
        {"headers": {"a b": "sk-hidden"}},
        {"headers": {"a": "sk-hidden\n"}},
        {"base_url": "http://user:sk-hidden@host"},
        {"base_url": "http://host?key=sk-hidden"},
        {"params": "sk-hidden"},
        {"unknown": "sk-hidden"},
    ],
    ids=repr,
)
def test_a_refusal_repeats_no_secret(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as raised:
        made(**{"api_key": "sk-hidden", **fields})
    assert "hidden" not in str(raised.value), "the text of the error holds what was entered"
    assert "hidden" not in "".join(error["msg"] for error in raised.value.errors())


@pytest.mark.parametrize("url", ["http://host", "https://host:8443/v1", "http://[::1]:11434/v1", "http://127.0.0.1:1"])
def test_a_base_url_loses_its_last_slash(url: str) -> None:
    assert made(base_url=url + "/").base_url == url


def test_a_registration_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        made().priority = 5


SECRETS = {
    "api_key": "s3cret-of-the-key",
    "headers": {"X-Auth": "s3cret-of-a-header", "Authorization": "Bearer s3cret-of-a-bearer"},
    "params": {
        "aws_secret_access_key": "s3cret-of-aws",
        "vertex_credentials": {"private": "s3cret-of-vertex"},
        "session_token": "s3cret-token",
        "extra_headers": {"authorization": "Bearer s3cret-nested", "accept": "text/plain"},
        "deep": [{"password": "s3cret-deep"}],
        "db_password": 12345678,
        "max_tokens": 5,
        "max_completion_tokens": 6,
        "temperature": 0.5,
    },
}


def test_anyone_may_see_the_rest_but_no_part_of_a_secret() -> None:
    shown = made(base_url="http://host/v1", **SECRETS).public()
    told = json.dumps(shown)
    assert "s3cret" not in told
    assert "12345678" not in told
    assert shown["api_key_set"] is True
    assert set(shown["headers"]) == {"X-Auth", "Authorization"}, "the names of the headers are no secret"
    assert shown["params"]["max_tokens"] == 5, "a count of tokens is no secret"
    assert shown["params"]["max_completion_tokens"] == 6
    assert shown["params"]["extra_headers"]["accept"] == "text/plain"
    assert shown["base_url"] == "http://host/v1"


@pytest.mark.parametrize("key", [None, ""])
def test_no_key_is_shown_as_none(key: str | None) -> None:
    assert made(api_key=key).public()["api_key_set"] is False


def test_an_error_message_loses_every_secret() -> None:
    said = " ".join(re.findall("s3cret[a-z-]+", json.dumps(SECRETS)))
    assert "s3cret" not in redact(said, made(**SECRETS).secrets())


def test_a_printed_registration_shows_no_key() -> None:
    config = made(api_key="s3cret", headers={"a": "s3cret"})
    assert "s3cret" not in repr(config) + str(config)


def test_the_store_gets_everything_back() -> None:
    config = made(
        base_url="http://host/v1", models=["x"], priority=7, retry={"max_attempts": 1}, timeouts={"total": 9},
        drop_params="always", context_window=8192, **SECRETS,
    )  # fmt: skip
    stored = json.loads(json.dumps(config.private()))
    assert ProviderConfig(**stored) == config
    assert ProviderConfig(**json.loads(json.dumps(made().private()))) == made()


def test_every_text_is_found_with_the_names_it_stands_under() -> None:
    given = {"a": "x", "b": [{"c": "y"}, 7, ["z"]], "d": None}
    assert list(texts(given)) == [(("a",), "x"), (("b", "0", "c"), "y"), (("b", "2", "0"), "z")]
