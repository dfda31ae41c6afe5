"""What a provider is: one model for a line in providers.yaml and for a registration over REST."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x20\x7f](.*[^\x00-\x20\x7f])?$")]
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]


def mistakes(error: ValidationError) -> list[tuple[tuple[str | int, ...], str]]:
    """Where each mistake stands, and what it is. Never the value itself: that may be a secret."""
    found = error.errors(include_input=False, include_url=False)
    return [(one["loc"], one["msg"].removeprefix("Value error, ")) for one in found]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)  # the input may be a key


class Retry(_Strict):
    """How often, and how patiently, one provider is asked. `initial` and `maximum` are seconds of back-off."""

    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    initial: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 0.2
    maximum: Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)] = 8.0


class Timeouts(_Strict):
    """The four limits of one attempt, in seconds. Time in which the client does not read counts for none of them."""

    connect: Seconds = 5
    first_token: Seconds = 120
    between_tokens: Seconds = 60
    total: Seconds = 900


class ProviderConfig(_Strict):
    """One provider. `model_name` is the upstream's name of its default model, `models` the names clients may use.

    `context_window`: tokens that a prompt and its answer may have together, where the model's name does not tell.
    `prefill`: its models go on with what an assistant's last message began, again where the name does not tell.
    `durable`: what is asked of it is kept before it is shown, unless the request says otherwise.
    """

    provider_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    provider_type: Name
    model_name: Name
    api_key: SecretStr | None = None
    base_url: str | None = None
    models: list[Name] = []
    context_window: Annotated[int, Field(ge=256, le=1_000_000_000)] | None = None
    prefill: bool | None = None
    durable: bool = False
    priority: Annotated[int, Field(ge=0, le=1000)] = 1
    retry: Retry = Retry()
    timeouts: Timeouts = Timeouts()
    headers: dict[str, SecretStr] = {}
    params: dict[str, Any] = {}
    drop_params: Literal["fallback", "always", "never"] = "fallback"

    @field_validator("provider_id")
    @classmethod
    def _not_a_route(cls, value: str) -> str:
        if value in ("health", "register"):
            raise ValueError(f"{value!r} is the name of a route; choose another id")
        return value

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_plain(value):
            raise ValueError("must be printable ASCII, without line breaks")
        return value

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.isprintable() or " " in value:
            raise ValueError("must not hold blanks or line breaks")
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http:// or https:// URL")
        if parts.username or parts.password:
            raise ValueError("must not carry a password; use api_key or headers")
        if parts.query or parts.fragment:
            raise ValueError("must not carry a query: paths are added at its end")
        parts.port  # noqa: B018  raises ValueError if it is none
        return value.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"{name!r} is not the name of an HTTP header")
            if not _is_plain(secret):
                raise ValueError(f"the value of {name!r} must be printable ASCII, without line breaks")
        return value

    @model_validator(mode="after")
    def _openai_has_somewhere_to_go(self) -> Self:
        if self.provider_type == "openai_compatible" and not self.base_url:
            raise ValueError("base_url is missing: where does this provider listen?")
        return self

    def secrets(self) -> list[str]:
        """Every secret this configuration holds, for `errors.redact`."""
        held = [word for value in self.headers.values() for word in value.get_secret_value().split()]
        held += [word for path, text in texts(self.params) if any(map(_SECRET.search, path)) for word in text.split()]
        return [*held, self.api_key.get_secret_value()] if self.api_key else held

    def public(self) -> dict[str, Any]:
        """The configuration as anyone may see it: secrets are named, never shown."""
        shown = self.model_dump(mode="json", exclude={"api_key", "headers", "params"})
        shown["api_key_set"] = bool(self.api_key)
        shown["headers"] = dict.fromkeys(self.headers, "[redacted]")
        shown["params"] = _without_secrets(self.params)
        return shown

    def private(self) -> dict[str, Any]:
        """The configuration with its secrets, for the store alone."""
        kept = self.model_dump(mode="json", exclude={"api_key", "headers"})
        kept["api_key"] = self.api_key.get_secret_value() if self.api_key else None
        kept["headers"] = {name: value.get_secret_value() for name, value in self.headers.items()}
        return kept


def _is_plain(value: SecretStr) -> bool:
    return value.get_secret_value().isascii() and value.get_secret_value().isprintable()


_SECRET = re.compile(r"(?i)key|secret|token(?!s|iz|_id)|passw|credential|auth|cookie")  # max_tokens is none


def texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text in what was configured, at whatever depth, after the names under which it stands."""
    if isinstance(value, str):
        yield path, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield from texts(child, (*path, str(name)))


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: "[redacted]" if _SECRET.search(str(name)) else _without_secrets(inner)
            for name, inner in value.items()
        }
    return [_without_secrets(inner) for inner in value] if isinstance(value, list) else value
