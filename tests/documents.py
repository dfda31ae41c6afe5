"""The examples in the documents, to be run: what users copy must work."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


class Example(NamedTuple):
    """A program, where it stands, and what it is said to print."""

    code: str
    place: str
    output: str


def examples(document: str) -> list[Example]:
    """Every block of Python in a document, and the block of text behind it."""
    text = (ROOT / document).read_text()
    return [
        Example(found[1], f"{document}:{text.count(chr(10), 0, found.start()) + 1}", found[2] or "")
        for found in _BLOCK.finditer(text)
    ]
