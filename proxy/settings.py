"""The environment, read and checked once. Every variable is in README.md."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from proxy.errors import ConfigError
from proxy.provider import mistakes

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]+")
_Seconds = Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)]


class Settings(BaseModel):
    """What the operator decides outside providers.yaml. Times are in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True)

    redis_url: SecretStr | None = None
    redis_prefix: str = "weir:"
    admin_key: SecretStr | None = None
    api_keys: list[SecretStr] = []
    origins: list[str] = []  # of pages that may use Weir, beside those served from where it is; `*` is all
    max_body: Annotated[int, Field(ge=1)] = 32 * 1024 * 1024
    keep_alive: Annotated[float, Field(gt=0, le=3600)] = 15.0  # silence on a stream before a comment is sent
    status_wait: _Seconds = 10.0  # how long the status line waits for the first event
    stall: Annotated[float, Field(gt=0, le=86400)] = 120.0  # a client that takes nothing for so long is let go
    drain: _Seconds = 5.0  # after SIGTERM: not ready any more, but still serving
    grace: _Seconds = 30.0  # then: how long running streams may go on
    store_budget: Annotated[int, Field(ge=1024 * 1024)] = 256 * 1024 * 1024  # of the embedded store
    session_ttl: Annotated[int, Field(ge=60, le=315_360_000)] = 30 * 86400  # of a session, after its last use
    stream_ttl: Annotated[int, Field(ge=60, le=30 * 86400)] = 3600  # of a durable stream, after its end
    stream_cap: Annotated[int, Field(ge=64 * 1024, le=1024**3)] = 8 * 1024 * 1024  # of its log
    log_level: str = "INFO"
    log_content: bool = False  # prompts and answers, in clear

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not (keys := [key.strip() for key in value.split(",") if key.strip()]):
            raise ValueError("is set, but holds no key")
        return keys

    @field_validator("admin_key", mode="before")
    @classmethod
    def _stripped(cls, value: Any) -> Any:
        """A secret that was made with `echo` ends in a line break, which no header can bring."""
        return value.strip() if isinstance(value, str) else value

    @field_validator("admin_key", "api_keys")
    @classmethod
    def _can_be_sent(cls, value: Any) -> Any:
        for key in value if isinstance(value, list) else [value] if value is not None else []:
            text = key.get_secret_value()
            if not text or not text.isascii() or not text.isprintable():
                raise ValueError("must be printable ASCII: nothing else can be sent in a header")
        return value

    @field_validator("origins", mode="before")
    @classmethod
    def _origins(cls, value: Any) -> Any:
        given = value.split(",") if isinstance(value, str) else value
        origins = [text for origin in given if (text := str(origin).strip().lower().removesuffix("/"))]
        for origin in origins:
            if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin: write it as https://chat.example")
        return origins

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ValueError("must be DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    @property
    def guarded(self) -> bool:
        return bool(self.admin_key or self.api_keys)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Reads REDIS_URL and WEIR_<FIELD>. Raises ConfigError with every mistake named; empty counts as absent."""
        names = {field: f"WEIR_{field.upper()}" for field in cls.model_fields} | {"redis_url": "REDIS_URL"}
        given = {field: environment[name] for field, name in names.items() if environment.get(name)}
        try:
            return cls(**given)  # type: ignore[arg-type]
        except ValidationError as error:
            raise ConfigError([f"{names[str(where[0])]}: {what}" for where, what in mistakes(error)]) from None
