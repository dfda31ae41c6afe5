"""How log lines look: one line each, with a time that sorts."""

import logging
import time


def configure(level: str) -> None:
    """Sends every logger of the process to stderr. Libraries speak only when something is wrong."""
    formatter = _OneLine("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("proxy").setLevel(level)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


class _OneLine(logging.Formatter):
    """What a client sent may stand in a record, and must neither begin a new line nor command the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        return line if record.name.startswith("uvicorn") else line.translate(_VISIBLE)  # uvicorn's hold tracebacks


_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}
