"""One line a record, with a time that sorts, whatever a client puts into it."""

import logging
import re
import sys
from collections.abc import Iterator

import pytest

from proxy.logs import configure

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (\w+) +([\w.]+): (.*)\n")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in (None, "proxy", "uvicorn")]
    levels, handlers = [logger.level for logger in loggers], loggers[0].handlers
    yield
    loggers[0].handlers = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def said(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, ...]]:
    text = capsys.readouterr().err
    lines = LINE.findall(text)
    assert LINE.sub("", text) == "", f"not all of it is lines: {text!r}"
    return lines


def test_a_record_is_a_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO")
    logging.getLogger("proxy.x").info("request %s", "r1")
    logging.getLogger("proxy.x").debug("too much")
    assert said(capsys) == [("INFO", "proxy.x", "request r1")]


def test_libraries_speak_only_when_something_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    configure("DEBUG")
    for name in ("aiohttp", "uvicorn.error", "proxy.y"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("trouble")
    logging.getLogger("proxy.y").debug("details")
    assert [(name, message) for _, name, message in said(capsys)] == [
        ("aiohttp", "trouble"),
        ("uvicorn.error", "trouble"),
        ("proxy.y", "chatter"),
        ("proxy.y", "trouble"),
        ("proxy.y", "details"),
    ]


@pytest.mark.parametrize(
    "evil", ["a\nb", "a\r\n2026-01-01 forged", "a\x1b[31mred", "a\0", "a\u2028b", "a\x85b", "a\x7f"]
)
def test_a_client_cannot_forge_a_line_or_paint_the_terminal(evil: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO")
    logging.getLogger("proxy.x").info("model=%s", evil)
    ((_, _, message),) = said(capsys)
    assert message.isprintable(), f"{message!r}"
    assert message.startswith("model=a\\x")


def test_other_scripts_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO")
    logging.getLogger("proxy.x").info("漢字 \U0001f600 é")
    assert said(capsys)[0][2] == "漢字 \U0001f600 é"


def test_a_traceback_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO")
    try:
        raise KeyError("boom")
    except KeyError:
        logging.getLogger("proxy.x").exception("request failed")
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.endswith("request failed")
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "KeyError: 'boom'"


def test_configured_twice_it_speaks_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO")
    configure("WARNING")
    logging.getLogger("proxy.x").warning("once")
    assert len(said(capsys)) == 1
    assert sys.stderr
