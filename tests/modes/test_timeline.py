"""docs/modes.md tells the truth: its pictures are what runs draw, its tables what the classes say."""

import re
from pathlib import Path
from typing import Any

import pytest

from proxy.generator import StreamingGenerator
from proxy.modes.buffered import Buffered
from proxy.modes.chunked import Chunked
from proxy.modes.interleaved import Interleaved
from proxy.modes.priority import Priority
from tests.modes.timeline import regrouped, reordered

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2].joinpath("docs/modes.md").read_text()


@pytest.mark.parametrize("picture", [regrouped, reordered])
async def test_a_picture_is_what_a_run_draws(picture: Any) -> None:
    assert await picture() in PAGE, "docs/modes.md is out of date: `python -m tests.modes.timeline` prints its pictures"


@pytest.mark.parametrize("mode", [Buffered(), Chunked(), Interleaved(), Priority()])
def test_a_table_lists_every_option_with_its_default(mode: StreamingGenerator) -> None:
    section = PAGE.split(f"### {type(mode).__name__.lower()}\n")[1].split("\n#")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", section, re.MULTILINE))
    assert told.keys() == type(mode).model_fields.keys()
    for name, value in mode.model_dump(mode="json").items():
        assert told[name].strip("`").replace('"', "'") == str(value).replace(".0", ""), f"the default of {name}"
