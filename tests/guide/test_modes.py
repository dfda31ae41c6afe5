"""Generator modes, row by row: how a stream is shaped on its way to the reader."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy import (
    BaseProviderAdapter,
    Event,
    Finish,
    FinishStep,
    GeneratorConfig,
    GeneratorMode,
    Messages,
    ProviderConfig,
    ReasoningDelta,
    Start,
    StreamingGenerator,
    TextDelta,
    ToolInputDelta,
    Tools,
    Weir,
)
from proxy.testing import ScriptedUpstream, begun, play, text
from tests.guide.asking import HI, heard, pieces
from tests.journeys import idle
from tests.server import serving
from tests.sse_reader import streaming

pytestmark = pytest.mark.anyio

LONG = ["0123456789"] * 300


async def test_g13_standard() -> None:
    """Every event goes out as it arrives."""
    more = asyncio.Event()
    script = [*begun("a"), more, *text("b")[2:]]
    async with ScriptedUpstream(script) as upstream, serving() as server:
        await server.register(upstream)
        async with streaming(server.url, generator_mode="standard") as reader:
            assert (await reader.until("text-delta"))["content"] == "a"
            more.set()  # not before: the first piece was here while the provider was still at it
            assert (await reader.until("text-delta"))["content"] == "b"
            await reader.until("finish")


async def test_g14_buffered() -> None:
    """Text is held until `buffer_size` characters or `flush_interval` seconds (defaults 1024 and 0.1), whichever is
    first."""
    silence = asyncio.Event()
    async with ScriptedUpstream(text(*LONG), [*begun("a", "b"), silence]) as upstream, serving() as server:
        await server.register(upstream)
        size_alone = {"flush_interval": 60}
        full = pieces(await heard(server, generator_mode="buffered", generator_config=size_alone))
        assert "".join(full) == "".join(LONG)
        assert [len(piece) for piece in full[:-1]] == [1030, 1030], "held longer, or less long, than 1024 characters"

        time_alone = {"buffer_size": 65536}
        async with streaming(server.url, generator_mode="buffered", generator_config=time_alone) as reader:
            assert (await reader.until("text-delta"))["content"], "held although the provider is silent"


@pytest.mark.parametrize(
    ("unit", "size", "expected"),
    [
        ("characters", 6, ["Hello ", "there.", " How a", "re you", "?\nFine", "."]),
        ("words", 2, ["Hello there. ", "How are ", "you?\nFine."]),
        ("sentences", 1, ["Hello there. ", "How are you?\n", "Fine."]),
        ("lines", 1, ["Hello there. How are you?\n", "Fine."]),
    ],
)
async def test_g15_chunked(unit: str, size: int, expected: list[str]) -> None:
    """Text is re-cut into pieces of one size: characters, words, sentences or lines."""
    async with ScriptedUpstream(text("Hel", "lo there. How a", "re you?\nFi", "ne.")) as upstream, serving() as server:
        await server.register(upstream)
        config = {"unit": unit, "size": size}
        assert pieces(await heard(server, generator_mode="chunked", generator_config=config)) == expected


async def test_g16_interleaved() -> None:
    """Several providers answer at once into one stream, each event labelled with its source, turns taken fairly."""
    go = asyncio.Event()
    names = ["a", "b", "c"]
    async with (
        serving() as server,
        ScriptedUpstream([*begun(), go, *text(*"1234")[2:]]) as a,
        ScriptedUpstream([*begun(), go, *text(*"5678")[2:]]) as b,
        ScriptedUpstream([*begun("I am first. "), *text("And done.")[2:]]) as c,
    ):
        for name, upstream in zip(names, (a, b, c), strict=True):
            await server.register(upstream, name)
        async with streaming(server.url, provider_ids=names, generator_mode="interleaved") as reader:
            while (await reader.next())["type"] != "data-source-end":
                pass
            assert reader.text == "I am first. And done.", "who is ready waits for those who are not"
            go.set()
            await reader.until("finish")
    assert {event["source"] for event in reader.events[:-1]} == {*names}, "an event does not say whose it is"
    assert ["".join(pieces(reader.events, name)) for name in names] == ["1234", "5678", "I am first. And done."]

    async with _with_talkers("a", "b") as weir:
        events = await _read_late(weir, GeneratorMode.INTERLEAVED, provider_ids=["a", "b"])
        takers = [event.source for event in events[1:-1]]
        assert takers[:12] == ["b", "a"] * 6, f"two that are both ready do not take turns: {takers}"


async def test_g17_priority() -> None:
    """Events carry a rank; when the reader is slower than the writers, the highest rank goes first (control, then
    tool calls, then answers, then thoughts; sources can be ranked too), order kept within one source and kind; an
    end or an error never overtakes its own source but lends it its rank."""

    async with _with_talkers("low", "high") as weir:
        alone = await _read_late(weir, GeneratorMode.PRIORITY, provider_id="low")
        of_one = ["Start", "{}", "answer 1", "answer 2", "thought 1", "thought 2", "FinishStep"]
        assert _told(alone) == [*of_one, "Finish"]

        ranks = GeneratorConfig(sources={"high": 10})
        both = await _read_late(weir, GeneratorMode.PRIORITY, ranks, provider_ids=["low", "high"])
        assert [event.source for event in both] == [*["high"] * 8, *["low"] * 8, ""], "the higher rank is not first"
        assert _told(both) == [*of_one, "SourceEnd", *of_one, "SourceEnd", "Finish"]


class Talker(BaseProviderAdapter):
    """Says some of each kind, all at once."""

    async def stream_chat(
        self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
    ) -> AsyncGenerator[Event, None]:
        yield Start()
        for number in "12":
            yield ReasoningDelta(content=f"thought {number}")
        for number in "12":
            yield TextDelta(content=f"answer {number}")
        yield ToolInputDelta(content="{}", id="t", name="tool")
        yield FinishStep(reason="tool_calls")
        yield Finish()


@asynccontextmanager
async def _with_talkers(*names: str) -> AsyncIterator[Weir]:
    async with Weir.open() as weir:
        weir.registry.add_adapter("talker", Talker)
        for name in names:
            await weir.register_provider(ProviderConfig(provider_id=name, provider_type="talker", model_name="m"))
        yield weir


async def _read_late(
    weir: Weir, mode: GeneratorMode, config: GeneratorConfig | None = None, **fields: Any
) -> list[Event]:
    """What a reader gets who reads nothing after the first event until everything is there."""
    async with weir.streaming_context(mode, config, **fields) as generator:
        answer = generator.generate(HI)
        first = await anext(answer)
        await idle()
        return [first, *await play(answer)]


def _told(events: list[Event]) -> list[str]:
    return [getattr(event, "content", "") or type(event).__name__ for event in events]


OWN_MODE = """
from proxy import StreamingGenerator, TextDelta


class Whisper(StreamingGenerator):
    dots: int = 0  # the fields of a mode are its options

    async def generate(self, merge):
        async for event in merge:
            if isinstance(event, TextDelta):
                event = TextDelta(content=event.content.lower() + "." * self.dots, source=event.source)
            yield event


def register(registry):
    registry.add_mode("whisper", Whisper)
"""


async def test_g18_a_users_own_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One class and one registration: `StreamingGenerator`, `GeneratorConfig`, a factory keyed by `GeneratorMode`."""
    (tmp_path / "whisper_plugin.py").write_text(OWN_MODE)
    monkeypatch.syspath_prepend(tmp_path)
    (file := tmp_path / "providers.yaml").write_text("plugins: [whisper_plugin]")
    async with ScriptedUpstream(text("LOUD")) as upstream, serving(file) as server:
        await server.register(upstream)
        asked = {"generator_mode": "whisper", "generator_config": GeneratorConfig(dots=3)}
        assert pieces(await heard(server, **asked)) == ["loud..."]
        wrong = {"messages": HI, **asked, "generator_config": {"dots": "many"}}
        refused = await server.ask("POST", "/api/streaming/chat", wrong)
        assert (refused.status, refused.body["error"]["param"]) == (400, "generator_config.dots")

    async with Weir.open(path=file) as weir:
        assert {*GeneratorMode, "whisper"} == {*weir.registry.modes()}
        made = weir.registry.mode(GeneratorMode.BUFFERED, GeneratorConfig(buffer_size=7))
        assert isinstance(made, StreamingGenerator)
        assert made.model_dump()["buffer_size"] == 7
