"""The environment: each variable is read, each mistake is named, no secret is shown."""

from typing import Any

import pytest
from pydantic import SecretStr

from proxy.errors import ConfigError
from proxy.settings import Settings


def read(**environment: str) -> Settings:
    return Settings.from_environment(environment)


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("REDIS_URL", "redis://127.0.0.1:6379/0", "redis_url", SecretStr("redis://127.0.0.1:6379/0")),
        ("WEIR_REDIS_PREFIX", "staging:", "redis_prefix", "staging:"),
        ("WEIR_ADMIN_KEY", "k1", "admin_key", SecretStr("k1")),
        ("WEIR_ADMIN_KEY", " k1\n", "admin_key", SecretStr("k1")),
        ("WEIR_API_KEYS", "k1", "api_keys", [SecretStr("k1")]),
        ("WEIR_API_KEYS", " k1, k2 ,,k3,", "api_keys", [SecretStr("k1"), SecretStr("k2"), SecretStr("k3")]),
        (
            "WEIR_ORIGINS",
            "https://Chat.example/, http://localhost:3000",
            "origins",
            ["https://chat.example", "http://localhost:3000"],
        ),
        ("WEIR_ORIGINS", "*", "origins", ["*"]),
        ("WEIR_MAX_BODY", "1000", "max_body", 1000),
        ("WEIR_KEEP_ALIVE", "0.5", "keep_alive", 0.5),
        ("WEIR_STATUS_WAIT", "0", "status_wait", 0.0),
        ("WEIR_STALL", "60", "stall", 60.0),
        ("WEIR_SESSION_TTL", "3600", "session_ttl", 3600),
        ("WEIR_STREAM_TTL", "600", "stream_ttl", 600),
        ("WEIR_STREAM_CAP", "65536", "stream_cap", 65536),
        ("WEIR_LOG_CONTENT", "true", "log_content", True),
        ("WEIR_DRAIN", "0", "drain", 0.0),
        ("WEIR_GRACE", "12.5", "grace", 12.5),
        ("WEIR_STORE_BUDGET", "1048576", "store_budget", 1024 * 1024),
        ("WEIR_LOG_LEVEL", "debug", "log_level", "DEBUG"),
    ],
)
def test_each_variable_is_read(name: str, text: str, field: str, value: Any) -> None:
    assert getattr(read(**{name: text}), field) == value


def test_each_field_has_its_variable_in_this_test() -> None:
    (mark,) = test_each_variable_is_read.pytestmark
    assert {field for _, _, field, _ in mark.args[1]} == set(Settings.model_fields)


def test_none_is_needed_and_an_empty_one_is_none() -> None:
    defaults = Settings()
    assert read() == defaults
    assert read(REDIS_URL="", WEIR_API_KEYS="", WEIR_DRAIN="", HOME="/root") == defaults
    assert (defaults.drain, defaults.grace, defaults.status_wait) == (5, 30, 10)
    assert defaults.store_budget == 256 * 1024 * 1024


@pytest.mark.parametrize(
    ("environment", "guarded"),
    [({}, False), ({"WEIR_API_KEYS": "k"}, True), ({"WEIR_ADMIN_KEY": "k"}, True), ({"REDIS_URL": "redis://x"}, False)],
)
def test_a_key_guards(environment: dict[str, str], guarded: bool) -> None:
    assert read(**environment).guarded == guarded


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("WEIR_API_KEYS", " , "),  # who sets it does not mean to open the doors
        ("WEIR_API_KEYS", "k1,schlüssel"),
        ("WEIR_ADMIN_KEY", "schlüssel"),
        ("WEIR_ADMIN_KEY", "k\n1"),
        ("WEIR_ADMIN_KEY", " "),
        ("WEIR_ORIGINS", "chat.example"),
        ("WEIR_ORIGINS", "https://chat.example/page"),
        ("WEIR_MAX_BODY", "0"),
        ("WEIR_MAX_BODY", "32MB"),
        ("WEIR_KEEP_ALIVE", "0"),
        ("WEIR_KEEP_ALIVE", "nan"),
        ("WEIR_STATUS_WAIT", "-1"),
        ("WEIR_STALL", "nan"),
        ("WEIR_STALL", "inf"),
        ("WEIR_DRAIN", "soon"),
        ("WEIR_GRACE", "inf"),
        ("WEIR_STORE_BUDGET", "1"),
        ("WEIR_LOG_LEVEL", "LOUD"),
    ],
)
def test_each_mistake_is_named(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**{name: text})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name}: ")
    assert "Value error" not in problem, f"pydantic's words, not ours: {problem}"


def test_all_of_them_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read(WEIR_DRAIN="-1", WEIR_GRACE="x", WEIR_LOG_LEVEL="?")
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "WEIR_DRAIN",
        "WEIR_GRACE",
        "WEIR_LOG_LEVEL",
    ]


def test_no_secret_is_shown() -> None:
    settings = read(REDIS_URL="redis://u:pass-1@h", WEIR_ADMIN_KEY="pass-2", WEIR_API_KEYS="pass-3,pass-4")
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "pass-" not in shown
    with pytest.raises(ConfigError) as caught:
        read(REDIS_URL="redis://u:pass-1@h", WEIR_ADMIN_KEY="pass-2", WEIR_API_KEYS="pass-3", WEIR_DRAIN="-1")
    assert "pass-" not in str(caught.value.problems)


def test_nobody_changes_them_later() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().drain = 1
