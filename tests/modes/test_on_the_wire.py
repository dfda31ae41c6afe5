"""What a mode makes of a vendor's chunks is the same answer on OpenAI's wire, log probabilities and all."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.adapters.openai_chunks import ChunkReader
from proxy.events import Event
from proxy.generator import StreamingGenerator
from proxy.heading import Heading
from proxy.testing import play
from proxy.testing.merge import merged
from proxy.wire.openai import ChunkEncoder
from proxy.wire.openai_fold import Fold
from tests.modes.test_every_mode import MODES
from tests.wire.test_openai_fold import streams


def whole(events: list[Event]) -> dict[str, Any]:
    fold = Fold(ChunkEncoder(Heading("r1", "asked", ["asked"], include_usage=True)))
    for event in events:
        fold.add(event)
    return fold.completion()


@st.composite
def mixed(draw: st.DrawFn) -> list[Any]:
    """Streams in whose chunks several things stand side by side."""
    first, *rest = draw(streams())
    chunks = [first]
    for one in rest:
        last = chunks[-1]["choices"][0]
        if one["choices"] and one["choices"][0]["index"] == last["index"] and draw(st.booleans()):
            choice = one["choices"][0]
            if not choice["delta"].keys() & {*last["delta"], "tool_calls"} and not last["finish_reason"]:
                last["delta"] |= choice["delta"]
                last |= {name: it for name, it in choice.items() if name != "delta"}
                continue
        chunks.append(one)
    return chunks


@pytest.mark.parametrize("mode", MODES, ids=repr)
@settings(max_examples=25)
@given(st.one_of(streams(), mixed()), st.sampled_from([0.0, 0.05]))
def test_the_answer_is_the_same(mode: StreamingGenerator, chunks: list[Any], pause: float) -> None:
    def read() -> list[Event]:
        reader = ChunkReader(str)
        return [*(it for one in chunks for it in reader.read(json.dumps(one).encode())), reader.finish()]

    async def shaped() -> list[Event]:
        script = [step for event in read() for step in (event, pause)]
        async with merged(script) as merge:
            return await play(mode.generate(merge))

    straight, through = whole(read()), whole(asyncio.run(shaped()))
    assert through == straight
