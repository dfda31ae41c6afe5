"""What each failure means, what the client is told, and what nobody is told."""

import time

import pytest

from proxy.errors import (
    AccessError,
    ConfigError,
    Kind,
    NoAnswer,
    ProviderError,
    RequestError,
    StoreAway,
    WeirError,
    redact,
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Kind.REJECTED),
        (401, Kind.AUTH),
        (402, Kind.AUTH),
        (403, Kind.AUTH),
        (404, Kind.MISSING),
        (408, Kind.BUSY),
        (409, Kind.BUSY),
        (413, Kind.REJECTED),
        (422, Kind.REJECTED),
        (429, Kind.RATE_LIMIT),
        (500, Kind.SERVER),
        (503, Kind.SERVER),
        (529, Kind.SERVER),
        (599, Kind.SERVER),
    ],
)
def test_a_status_has_a_kind(status: int, kind: Kind) -> None:
    assert Kind.of_status(status) is kind


# kind: (ask again, ask another, counts towards leaving the provider out)
DECISIONS = {
    Kind.CONNECT: (True, True, True),
    Kind.TIMEOUT: (True, True, True),
    Kind.SERVER: (True, True, True),
    Kind.CUT: (True, True, True),
    Kind.GARBLED: (True, True, True),
    Kind.AUTH: (False, True, True),
    Kind.CONFIG: (False, True, True),
    Kind.RATE_LIMIT: (True, True, False),
    Kind.BUSY: (True, True, False),
    Kind.MISSING: (False, True, False),
    Kind.REJECTED: (False, False, False),
}


@pytest.mark.parametrize("kind", Kind)
def test_a_kind_decides_what_happens_next(kind: Kind) -> None:
    assert (kind.retryable, kind.falls_back, kind.trips) == DECISIONS[kind]


@pytest.mark.parametrize(
    ("error", "status", "code", "type"),
    [
        (RequestError("no"), 400, "invalid_request", "invalid_request_error"),
        (RequestError("no", status=404, code="model_not_found"), 404, "model_not_found", "invalid_request_error"),
        (AccessError("no"), 401, "invalid_api_key", "authentication_error"),
        (AccessError("no", status=403, code="closed"), 403, "closed", "permission_error"),
        (ConfigError(["a", "b"]), 400, "invalid_config", "invalid_request_error"),
        (StoreAway("a session"), 503, "store_unavailable", "server_error"),
        (ProviderError(Kind.CUT, "no"), 502, "provider_error", "server_error"),
        (WeirError("no"), 500, "internal_error", "server_error"),
    ],
)
def test_an_error_is_told_as_openai_tells_it(error: WeirError, status: int, code: str, type: str) -> None:
    assert error.status == status
    assert error.body() == {"error": {"message": error.message, "type": type, "param": error.param, "code": code}}


def test_an_error_names_the_field() -> None:
    assert RequestError("no", param="n").body()["error"]["param"] == "n"


def test_a_wrong_configuration_names_every_mistake() -> None:
    error = ConfigError(["a is missing", "b is negative"])
    assert error.problems == ["a is missing", "b is negative"]
    assert error.message == "a is missing; b is negative"


def failed(kind: Kind, status: int | None = None, retry_after: float | None = None) -> ProviderError:
    return ProviderError(kind, f"it said {kind}", upstream_status=status, retry_after=retry_after)


@pytest.mark.parametrize(
    ("failures", "status", "code"),
    [
        ([failed(Kind.RATE_LIMIT, 429)], 429, "rate_limited"),
        ([failed(Kind.RATE_LIMIT, 429), failed(Kind.SERVER, 500)], 502, "all_providers_failed"),
        ([failed(Kind.TIMEOUT)], 504, "provider_timeout"),
        ([failed(Kind.CONNECT), failed(Kind.CUT)], 502, "all_providers_failed"),
        ([failed(Kind.AUTH, 401)], 502, "all_providers_failed"),
        ([failed(Kind.SERVER, 500), failed(Kind.REJECTED, 422)], 422, "provider_rejected"),
        ([failed(Kind.REJECTED)], 400, "provider_rejected"),
        ([failed(Kind.MISSING, 404)], 404, "provider_rejected"),
        ([failed(Kind.MISSING, 404), failed(Kind.SERVER, 500)], 502, "all_providers_failed"),
    ],
)
def test_when_all_have_failed_the_status_says_whose_fault_it_was(
    failures: list[ProviderError], status: int, code: str
) -> None:
    error = NoAnswer(dict(zip("ab", failures, strict=False)))
    assert (error.status, error.code) == (status, code)


def test_when_all_have_failed_each_has_its_say() -> None:
    error = NoAnswer({"a": failed(Kind.SERVER, 500), "b": failed(Kind.CONNECT)})
    assert error.message == "no provider could answer: a: server 500 (it said server); b: connect (it said connect)"


def test_a_clients_own_mistake_is_told_in_the_providers_words() -> None:
    assert NoAnswer({"a": failed(Kind.REJECTED, 400)}).message == "it said rejected"


def test_and_under_the_name_that_it_has_there() -> None:
    """Clients shorten a conversation, or fall back, where they find `context_length_exceeded`."""
    named = ProviderError(Kind.REJECTED, "too long", code="context_length_exceeded", param="messages")
    error = NoAnswer({"a": failed(Kind.SERVER, 500), "b": named})
    assert (error.code, error.param) == ("context_length_exceeded", "messages")
    assert NoAnswer({"b": named, "c": failed(Kind.SERVER, 500)}).code == "all_providers_failed"


@pytest.mark.parametrize(
    ("waits", "header"), [([None, None], None), ([None, 7.0], "7"), ([9.0, 7.0], "7"), ([0.2], "1"), ([2.4], "3")]
)
def test_the_client_is_told_when_the_first_provider_is_free(waits: list[float | None], header: str | None) -> None:
    failures = {str(n): failed(Kind.RATE_LIMIT, 429, wait) for n, wait in enumerate(waits)}
    assert NoAnswer(failures).headers.get("retry-after") == header, "never sooner than the provider asked for"


SECRET = "abcdefgh12345678"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Incorrect API key provided: sk-ab***yz.", "Incorrect API key provided: [redacted]"),
        ("key sk-proj-Abc_123.def456 is wrong", "key [redacted] is wrong"),
        ("key gsk_abcdef123456 is wrong", "key [redacted] is wrong"),
        ("key AIzaSyA1234567890 is wrong", "key [redacted] is wrong"),
        ("key AKIAIOSFODNN7EXAMPLE is wrong", "key [redacted] is wrong"),
        ("key key-1a2b3c4d5e6f7a8b9c0d is wrong", "key [redacted] is wrong"),
        ("key xai-1234567890 is wrong", "key [redacted] is wrong"),
        ("header 'Authorization: Bearer abc.def-123=' is wrong", "header 'Authorization: [redacted]' is wrong"),
        ("key ****5678 is wrong", "key [redacted] is wrong"),
        ("key ab12****5678 is wrong", "key [redacted] is wrong"),
        (f"key {SECRET} is wrong", "key [redacted] is wrong"),
        (f"url ?key={SECRET}&x=1", "url ?key=[redacted]&x=1"),
    ],
)
def test_no_key_is_repeated_not_even_in_part(said: str, told: str) -> None:
    assert redact(said, [SECRET]) == told


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 8192 tokens",
        "keyword_arguments: unknown; did you mean key_arguments_list?",
        "skepticism, sketchbooks and skyscrapers are words",
        "the bearer of this message",
        "the key provided is no key",
        "use **bold** text",
    ],
)
def test_plain_words_are_left_alone(said: str) -> None:
    assert redact(said) == said


def test_a_secret_inside_another_leaves_no_rest() -> None:
    assert redact("it is secret-and-more", ["secret", "secret-and-more"]) == "it is [redacted]"


def test_a_secret_too_short_to_be_one_does_not_eat_the_message() -> None:
    assert redact("a banana", ["a", ""]) == "a banana"


def test_what_is_told_has_a_limit() -> None:
    assert redact("x" * 501) == "x" * 500 + "..."
    assert "[redacted]" in redact("x" * 485 + " " + SECRET, [SECRET]), "cut before it was redacted"


@pytest.mark.parametrize("piece", ["x", "*", "x*", "sk-", "key-", "key_a ", "Bearer ", "-.", "**x "])
def test_a_long_message_takes_no_time(piece: str) -> None:
    began = time.process_time()
    redact(piece * (200_000 // len(piece)))
    assert time.process_time() - began < 0.5, f"200 KB of {piece!r} keep everyone waiting"
