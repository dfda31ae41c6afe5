"""The AI SDK, unmodified, reads what we write and writes what we read: its chat engine, in every version from 5 on.

The first of a version refuses parts with fields it does not know; later ones do not.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from proxy.events import (
    Abort,
    Error,
    Event,
    Finish,
    FinishStep,
    ReasoningDelta,
    SourceEnd,
    Start,
    Steered,
    TextDelta,
    ToolInput,
    ToolInputDelta,
    ToolOutput,
    Usage,
    Vendor,
)
from proxy.testing import chunk, says
from proxy.wire import KEEP_ALIVE
from proxy.wire.ui import UIEncoder
from proxy.wire.ui_messages import continued, read_messages
from tests.clients.node import Answers, Program, Script, answering, needs_clients, node

pytestmark = [pytest.mark.anyio, needs_clients]

VERSIONS = ["ai5-first", "ai5", "ai6-first", "ai6", "ai7"]


@pytest.fixture(scope="module", params=VERSIONS)
async def sdk(request: pytest.FixtureRequest) -> AsyncIterator[Program]:
    async with node("chat.mjs", request.param) as program:
        yield program


class Chat:
    """What a chat held at the end, and the messages we were asked about, as OpenAI's."""

    def __init__(self, held: Any, answers: Answers):
        self.status: str = held["status"]
        self.error: str | None = held.get("error")
        self.messages: list[Any] = held["messages"]
        self.data: list[Any] = held["data"]
        self.asked = [read_messages(body["messages"]) for body in answers.asked]

    @property
    def parts(self) -> list[Any]:
        """Those of the last message; null fields and the marks of steps left out."""
        parts = self.messages[-1]["parts"]
        return [
            {name: value for name, value in part.items() if value is not None}
            for part in parts
            if part["type"] != "step-start"
        ]

    @property
    def text(self) -> str:
        return "".join(part["text"] for part in self.parts if part["type"] == "text")


async def chat(sdk: Program, *scripts: Script, steps: Any = None, several: bool = False, **play: Any) -> Chat:
    """Plays `steps` (one message, if there are none). Our answers are `scripts`, in order; the last repeats."""
    answers = Answers(
        lambda body: scripts[min(len(answers.asked), len(scripts)) - 1],
        lambda body: UIEncoder(continued(body["messages"]) or f"m{len(answers.asked)}", several=several),
    )
    async with answering(answers) as url:
        held = await sdk.ask({"api": f"{url}/api/chat", "steps": steps or [{"send": "hi"}], **play})
        if play.get("wait_until_gone"):
            async with asyncio.timeout(10):
                await answers.gone.wait()
    return Chat(held, answers)


async def test_a_text(sdk: Program) -> None:
    script = says("Hel", "lo", usage=(3, 2))
    script[0] = Start(model="gpt-x")
    end = await chat(sdk, [*script[:2], KEEP_ALIVE, *script[2:]])
    assert (end.status, end.error, end.text) == ("ready", None, "Hello")
    assert end.parts == [{"type": "text", "text": "Hello", "state": "done"}]
    user, answer = end.messages
    assert (user["role"], answer["role"], answer["id"]) == ("user", "assistant", "m1")
    usage = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
    assert answer["metadata"] == {"model": "gpt-x", "finishReason": "stop", "usage": usage}
    assert end.asked == [[{"role": "user", "content": "hi"}]]


async def test_the_conversation_comes_back(sdk: Program) -> None:
    image = {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AAAA"}
    steps = [{"send": "hi"}, {"send": "and this?", "files": [image]}]
    end = await chat(sdk, says("Hello."), says("A picture."), steps=steps)
    assert end.asked[-1] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello."},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": image["url"]}},
                {"type": "text", "text": "and this?"},
            ],
        },
    ]
    assert [message["id"] for message in end.messages if message["role"] == "assistant"] == ["m1", "m2"]


async def test_thoughts_and_what_their_vendor_wants_back(sdk: Program) -> None:
    block = {"type": "thinking", "thinking": "Hm, well", "signature": "s"}
    script: Script = [
        Start(),
        ReasoningDelta(content="Hm, "),
        ReasoningDelta(content="well"),
        ReasoningDelta(content="", extra={"thinking_blocks": [block]}),
        TextDelta(content="Yes."),
        FinishStep(reason="stop"),
        Finish(),
    ]
    end = await chat(sdk, script, says("Indeed."), steps=[{"send": "hi"}, {"send": "really?"}])
    thought, said = end.messages[1]["parts"][1:]
    assert (thought["type"], thought["text"], thought["state"]) == ("reasoning", "Hm, well", "done")
    assert (said["text"], said["state"]) == ("Yes.", "done")
    assert end.asked[-1][1] == {"role": "assistant", "content": "Yes.", "thinking_blocks": [block]}


WEATHER = [
    Start(),
    TextDelta(content="I look."),
    ToolInputDelta(id="c1", name="weather", content='{"place":'),
    ToolInputDelta(content='"Rome"}'),
    ToolInputDelta(slot=1, id="c2", name="clock"),
    FinishStep(reason="tool_calls"),
    Finish(),
]


async def test_a_tool_that_the_page_runs(sdk: Program) -> None:
    end = await chat(sdk, WEATHER, says("It is warm."), tools={"weather": {"degrees": 24}, "clock": "noon"}, auto=True)
    assert (end.status, end.error, len(end.messages)) == ("ready", None, 2), "the answer is to go on in one message"
    first, weather, clock, last = end.parts
    assert (first["text"], last["text"]) == ("I look.", "It is warm.")
    assert (weather["type"], weather["state"]) == ("tool-weather", "output-available")
    assert (weather["input"], weather["output"]) == ({"place": "Rome"}, {"degrees": 24})
    assert (clock["type"], clock["input"], clock["output"]) == ("tool-clock", {}, "noon"), "no arguments are {}"
    assert len(end.asked) == 2
    called = [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"place":"Rome"}'}},
        {"id": "c2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
    ]
    assert end.asked[-1][1:] == [
        {"role": "assistant", "content": "I look.", "tool_calls": called},
        {"role": "tool", "tool_call_id": "c1", "content": '{"degrees":24}'},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
    ]


async def test_a_call_whose_arguments_are_cut_short_is_not_run(sdk: Program) -> None:
    cut = [*WEATHER[:3], FinishStep(reason="length"), Finish()]
    end = await chat(sdk, cut, tools={"weather": "it was run"})
    weather = end.parts[1]
    assert weather["state"] == "output-error"
    assert "not valid JSON" in weather["errorText"]
    assert (end.status, end.error) == ("ready", None)


async def test_tools_that_an_agent_runs_by_itself(sdk: Program) -> None:
    """They are not the page's to run, and must not make it ask again."""
    script: Script = [
        Start(),
        ToolInput(id="c1", name="search", input={"q": "Rome"}),
        ToolInput(id="c2", name="search", input={"q": "Oslo"}),
        ToolOutput(id="c1", output=["warm"]),
        ToolOutput(id="c2", error="timed out"),
        TextDelta(content="Warm, I think."),
        FinishStep(reason="stop"),
        Finish(),
    ]
    end = await chat(sdk, script, says("Yes."), tools={"search": "it was run here"}, auto=True)
    rome, oslo, said = end.parts
    assert (rome["type"], rome["toolName"], rome["state"], rome["output"]) == (
        "dynamic-tool",
        "search",
        "output-available",
        ["warm"],
    )
    assert (oslo["state"], oslo["errorText"]) == ("output-error", "timed out")
    assert said["text"] == "Warm, I think."
    assert (end.status, len(end.asked)) == ("ready", 1)

    again = await chat(sdk, script, says("Yes."), steps=[{"send": "hi"}, {"send": "sure?"}])
    _, called, first, second, told, _ = again.asked[-1]
    assert [call["id"] for call in called["tool_calls"]] == ["c1", "c2"]
    assert (first["content"], second["content"]) == ('["warm"]', "timed out")
    assert told == {"role": "assistant", "content": "Warm, I think."}


@pytest.mark.parametrize(
    ("last", "told"), [(Error(message="it broke"), "it broke"), (Abort(reason="bye"), "the stream was stopped: bye")]
)
async def test_a_stream_that_breaks_is_no_whole_answer(sdk: Program, last: Event, told: str) -> None:
    end = await chat(sdk, [Start(), TextDelta(content="Hel"), last])
    assert (end.status, end.error, end.text) == ("error", told, "Hel")
    first = await chat(sdk, [last])
    assert (first.status, first.error, len(first.messages)) == ("error", told, 1)


async def test_the_page_stops_the_answer(sdk: Program) -> None:
    script: Script = [Start(), TextDelta(content="la "), asyncio.Event()]
    end = await chat(sdk, script, steps=[{"send": "sing", "stop": "la"}], wait_until_gone=True)
    assert (end.status, end.error, end.text) == ("ready", None, "la ")


async def test_an_answer_is_asked_for_once_more(sdk: Program) -> None:
    end = await chat(sdk, says("One."), says("Two."), steps=[{"send": "hi"}, {"regenerate": True}])
    assert ([message["role"] for message in end.messages], end.text) == (["user", "assistant"], "Two.")
    assert end.asked[0] == end.asked[1]


async def test_several_sources_are_told_apart(sdk: Program) -> None:
    script: Script = [
        Start(source="a"),
        TextDelta(source="a", content="A"),
        Start(source="b"),
        ReasoningDelta(source="b", content="hm"),
        TextDelta(source="a", content="a"),
        TextDelta(source="b", content="B"),
        FinishStep(source="a", reason="stop"),
        SourceEnd(source="a", reason="finish", usage=Usage(input_tokens=1, output_tokens=2)),
        TextDelta(source="b", content="b"),
        SourceEnd(source="b", reason="error", message="it broke", code="provider_error"),
        Finish(usage=Usage(input_tokens=1, output_tokens=2)),
    ]
    end = await chat(sdk, script, several=True)
    said = {(part["providerMetadata"]["weir"]["source"], part["type"]): part for part in end.parts if "text" in part}
    assert {whose: part["text"] for whose, part in said.items()} == {
        ("a", "text"): "Aa",
        ("b", "reasoning"): "hm",
        ("b", "text"): "Bb",
    }
    assert {part["state"] for part in said.values()} == {"done"}
    ends = [part["data"] for part in end.parts if part["type"] == "data-source-end"]
    counted = {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}
    assert ends == [
        {"source": "a", "reason": "finish", "usage": counted},
        {"source": "b", "reason": "error", "message": "it broke", "code": "provider_error"},
    ]
    assert (end.status, end.error) == ("ready", None)


async def test_choices_side_by_side(sdk: Program) -> None:
    script: list[Event] = [Start(), Start(index=1)]
    script += [TextDelta(content=text, index=index) for text, index in [("a", 0), ("b", 1), ("A", 0), ("B", 1)]]
    script += [FinishStep(reason="stop"), FinishStep(reason="length", index=1), Finish()]
    end = await chat(sdk, script)
    assert [part["text"] for part in end.parts] == ["aA", "bB"]
    assert end.parts[1]["providerMetadata"] == {"weir": {"index": 1}}
    assert end.messages[-1]["metadata"]["finishReason"] == "stop"


async def test_an_answer_that_was_steered(sdk: Program) -> None:
    script = [Start(), TextDelta(content="Il é"), Steered(instruction="in English"), *says("It was")[1:]]
    end = await chat(sdk, script, says("Yes."), steps=[{"send": "hi"}, {"send": "sure?"}])
    assert [part.get("text") or part["data"] for part in end.messages[1]["parts"] if part["type"] != "step-start"] == [
        "Il é",
        {"instruction": "in English"},
        "It was",
    ]
    assert end.asked[-1][1:4] == [
        {"role": "assistant", "content": "Il é"},
        {"role": "user", "content": "in English"},
        {"role": "assistant", "content": "It was"},
    ]


async def test_what_a_vendor_says_besides_is_not_kept_in_the_message(sdk: Program) -> None:
    raw = msgspec.json.encode(chunk({"refusal": "No."}))
    end = await chat(sdk, [Start(), Vendor(raw=raw, answer=True), Vendor(raw=raw), *says("Sorry.")[1:]])
    (vendor,) = end.data
    assert (vendor["type"], vendor["data"]) == ("data-vendor", {"refusal": "No."})
    assert end.parts == [{"type": "text", "text": "Sorry.", "state": "done"}]
