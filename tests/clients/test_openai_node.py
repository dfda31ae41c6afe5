"""OpenAI's SDK for Node, unmodified, adds up what we write."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.events import Error, Event, Finish, FinishStep, SourceEnd, Start, TextDelta, ToolInputDelta, Usage
from proxy.heading import Heading
from proxy.testing import chunk, says
from proxy.wire import Encoder
from proxy.wire.openai import ChunkEncoder
from proxy.wire.openai_choices import ChoicesEncoder
from tests.clients.node import Answers, Program, Script, answering, needs_clients, node
from tests.wire.test_openai import read

pytestmark = [pytest.mark.anyio, needs_clients]


@pytest.fixture(scope="module")
async def sdk() -> AsyncIterator[Program]:
    async with node("openai.mjs") as program:
        yield program


async def completion(sdk: Program, script: Script, encoder: Encoder) -> Any:
    async with answering(Answers(lambda body: script, lambda body: encoder)) as url:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        return await sdk.ask({"api": f"{url}/v1", "body": body})


def plain() -> ChunkEncoder:
    return ChunkEncoder(Heading("r1", "m", ["m"], include_usage=True))


async def test_a_providers_own_chunks(sdk: Program) -> None:
    counts = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    pieces = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({"content": "lo"})]
    events = read(*pieces, chunk(finish="stop"), chunk(choices=[], usage=counts))
    answer = await completion(sdk, [*events, Finish()], plain())
    assert (answer["choices"][0]["message"]["content"], answer["usage"]) == ("Hello", counts)


async def test_chunks_that_we_built(sdk: Program) -> None:
    script = [
        Start(id="c1", model="m", created=7),
        ToolInputDelta(id="a", name="f", content='{"x"'),
        ToolInputDelta(content=":1}"),
        FinishStep(reason="tool_calls"),
        Finish(),
    ]
    answer = await completion(sdk, script, plain())
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert (call["id"], call["function"]["name"], call["function"]["arguments"]) == ("a", "f", '{"x":1}')


async def test_several_sources_are_choices(sdk: Program) -> None:
    """Whoever speaks first, and whatever becomes of the others."""
    theirs = read(chunk({"role": "assistant", "content": "B"}, id="b1"), chunk({"content": "b"}, id="b1"))
    for event in theirs:
        event.source = "b"
    script: list[Event] = [
        *theirs,
        Start(source="a", id="a1", model="claude"),
        TextDelta(source="a", content="Aa"),
        FinishStep(source="a", reason="stop"),
        SourceEnd(source="a", reason="finish"),
        SourceEnd(source="b", reason="error", message="it broke", code="provider_error"),
        Finish(usage=Usage(input_tokens=1, output_tokens=2)),
    ]
    answer = await completion(sdk, script, ChoicesEncoder(Heading("r1", "m", ["a", "b"], include_usage=True)))
    said = [(choice["message"]["content"], choice["finish_reason"]) for choice in answer["choices"]]
    assert said == [("Aa", "stop"), ("Bb", "error")]
    assert {choice["message"]["role"] for choice in answer["choices"]} == {"assistant"}
    assert answer["id"] == "chatcmpl-r1"
    assert answer["usage"]["total_tokens"] == 3


async def test_a_stream_that_breaks_raises(sdk: Program) -> None:
    said = await completion(sdk, [*says("Hel")[:2], Error(message="it broke")], plain())
    assert said["kind"] == "APIError"
    assert "it broke" in said["error"]
