"""The Retry-After header: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after"""

import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait, from `retry-after-ms`, or Retry-After as seconds or as an HTTP date; None without either.

    `now` is in seconds since 1970. OpenAI and Azure send the milliseconds beside the standard header.
    """
    if (milliseconds := _number(headers.get("retry-after-ms", ""))) is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    if (seconds := _number(value)) is not None:
        return seconds
    if (date := _date(value)) is not None:
        return max(0.0, date - (time.time() if now is None else now))
    return None


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None


def _date(value: str) -> float | None:
    """In seconds since 1970. A date without a zone is in UTC, as every HTTP date is."""
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
