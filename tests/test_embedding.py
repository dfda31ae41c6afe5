"""Weir in a program of one's own: what it registers, what it reads, and what it finds when things go wrong."""

import ast
import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import proxy
from proxy import (
    Abort,
    BaseProviderAdapter,
    ConfigError,
    Error,
    Event,
    Finish,
    GeneratorConfig,
    GeneratorMode,
    Messages,
    ProviderConfig,
    RequestError,
    Settings,
    Start,
    StreamFormat,
    TextDelta,
    Tools,
    Weir,
)
from proxy.testing import (
    ScriptedUpstream,
    begun,
    check_adapter,
    cut_after,
    hang_after,
    hang_before,
    play,
    refuse,
    status,
    text,
    text_of,
)
from tests.documents import ROOT, Example, examples

pytestmark = pytest.mark.anyio

HI: Messages = [{"role": "user", "content": "hi"}]
ONCE = {"retry": {"max_attempts": 1}}
PROGRAMS = [example for example in examples("docs/embedding.md") if "FastAPI" not in example.code]


@pytest.fixture
async def weir() -> AsyncIterator[Weir]:
    async with Weir.open() as opened:
        yield opened


async def register(weir: Weir, url: str, provider_id: str = "main", **fields: Any) -> None:
    await weir.register_openai_provider(provider_id, "m", "sk-0123456789", url, **{**ONCE, **fields})


@pytest.mark.parametrize("example", PROGRAMS, ids=lambda example: example.place)
async def test_the_examples_of_the_document_do_what_it_says(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[str] = []

    def write(*words: object, end: str = "\n") -> None:
        printed.append(" ".join(map(str, words)) + end)

    monkeypatch.chdir(tmp_path)
    async with ScriptedUpstream(text("Rivers carry ", "mountains to the sea.")) as upstream:
        code = compile(example.code.replace("http://127.0.0.1:9000/v1", upstream.url), example.place, "exec")
        await asyncio.to_thread(exec, code, {"__name__": "__main__", "print": write})
    assert "".join(printed) == example.output


def test_importing_proxy_imports_next_to_nothing() -> None:
    """`python -m proxy chat` imports it too, and should not take a second to say hello."""
    code = "import sys, proxy; print([m for m in ('pydantic', 'aiohttp', 'fastapi', 'redis') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_that_is_offered_is_there() -> None:
    tree = ast.parse((ROOT / "proxy" / "__init__.py").read_text())
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    known_to_mypy = set(imported) - {"import_module", "TYPE_CHECKING"}
    assert known_to_mypy == set(proxy.__all__), "mypy and Python know different names"
    for name in proxy.__all__:
        assert getattr(proxy, name) is not None
    with pytest.raises(AttributeError, match="Wier"):
        proxy.Wier  # type: ignore[attr-defined]  # noqa: B018


class TestRegistering:
    async def test_a_provider_can_be_used_at_once_and_not_after_it_is_gone(self, weir: Weir) -> None:
        async with ScriptedUpstream(text("hello")) as upstream:
            await register(weir, upstream.url)
            assert weir.list_providers() == ["main"]
            assert text_of(await play(weir.stream_chat(HI, provider_id="main"))) == "hello"
            await weir.unregister_provider("main")
        with pytest.raises(RequestError, match="main"):
            weir.stream_chat(HI, provider_id="main")

    async def test_a_provider_can_be_verified_first(self, weir: Weir) -> None:
        fields = {"provider_id": "main", "provider_type": "openai", "model_name": "m", "base_url": refuse()}
        verified = await weir.register_provider(ProviderConfig(**fields), verify=True)  # type: ignore[arg-type]
        assert verified is not None
        assert (verified["ok"], verified["kind"], weir.list_providers()) == (False, "connect", ["main"])

    async def test_a_wrong_registration_is_told_at_once(self, weir: Weir) -> None:
        with pytest.raises(RequestError, match="model_name") as caught:
            await weir.register_openai_provider("main", model_name="")
        assert caught.value.param == "model_name"
        with pytest.raises(ConfigError, match="nonsense"):
            await weir.register_provider(ProviderConfig(provider_id="a", provider_type="nonsense", model_name="m"))
        with pytest.raises(RequestError, match="nobody"):
            await weir.unregister_provider("nobody")
        assert weir.list_providers() == []

    async def test_what_stands_in_the_file_is_the_files(self, tmp_path: Path) -> None:
        path = tmp_path / "providers.yaml"
        path.write_text("providers: [{provider_id: main, provider_type: openai, model_name: m, api_key: k}]")
        async with Weir.open(Settings(), path) as weir:
            with pytest.raises(RequestError, match=r"providers\.yaml"):
                await register(weir, refuse())
            with pytest.raises(RequestError, match=r"providers\.yaml"):
                await weir.unregister_provider("main")


class TestAnAdapter:
    async def test_is_one_like_any_other(self, weir: Weir) -> None:
        async with ScriptedUpstream(text("one")) as upstream:
            await register(weir, upstream.url)
            adapter = weir.get_adapter("main")
            await adapter.create_model()
            await check_adapter(adapter)
        assert adapter.supports_feature("tools")
        assert not adapter.supports_feature("telepathy")

    async def test_asks_for_the_model_it_is_told(self, weir: Weir) -> None:
        async with ScriptedUpstream(text("hi")) as upstream:
            await register(weir, upstream.url)
            await play(weir.get_adapter("main").stream_chat(HI, [], model="big", temperature=0.5))
        asked = upstream.requests[0].body
        assert (asked["model"], asked["temperature"], asked["tools"]) == ("big", 0.5, [])

    async def test_is_retried_and_counted_as_any_request(self, weir: Weir) -> None:
        async with ScriptedUpstream(status(500), text("at last")) as upstream:
            await register(weir, upstream.url, retry={"max_attempts": 2, "initial": 0})
            assert text_of(await play(weir.get_adapter("main").stream_chat(HI))) == "at last"
        total = (await weir.health_check_all())["providers"]["main"]["total"]
        assert (total["requests"], total["successes"]) == (2, 1)


class TestFailures:
    @pytest.mark.parametrize("script", [status(500), cut_after(0), cut_after(2)], ids=["500", "cut", "cut late"])
    async def test_of_a_provider_are_events(self, weir: Weir, script: Any) -> None:
        async with ScriptedUpstream(script) as upstream:
            await register(weir, upstream.url)
            events = await play(weir.stream_chat(HI))
        assert isinstance(events[-1], Error), f"the stream ended in {events[-1]}"
        assert events[-1].seq == len(events)
        assert "main" in events[-1].message, "nobody is told who failed"

    async def test_of_ours_are_events_too(self, weir: Weir, monkeypatch: pytest.MonkeyPatch) -> None:
        async with ScriptedUpstream(text("hi")) as upstream:
            await register(weir, upstream.url)
            monkeypatch.setattr(weir.pipeline, "_sources", None)
            (event,) = await play(weir.stream_chat(HI))
        assert isinstance(event, Error)
        assert event.code == "internal_error"

    async def test_are_written_in_every_format(self, weir: Weir) -> None:
        await register(weir, refuse())
        for stream_format in (StreamFormat.SSE, StreamFormat.OPENAI, StreamFormat.UI):
            data = b"".join([data async for data in weir.stream_chat(HI, stream_format=stream_format)])
            assert b'"error' in data, f"{stream_format} does not tell the failure: {data!r}"
            assert b"[DONE]" not in data

    @pytest.mark.parametrize(
        ("wrong", "param"),
        [
            ({"provider_id": "nobody"}, "model"),
            ({"messages": []}, "messages"),
            ({"messages": "hello"}, "messages"),
            ({"generator_mode": "sideways"}, "generator_mode"),
            ({"generator_mode": "buffered", "generator_config": {"size": 1}}, "generator_config.size"),
            ({"temperature": "hot"}, "temperature"),
            ({"session_id": "no/slashes"}, "session_id"),
            ({"stream_format": "morse"}, "stream_format"),
        ],
    )
    async def test_of_the_caller_are_told_at_once(self, weir: Weir, wrong: dict[str, Any], param: str) -> None:
        await register(weir, refuse())
        with pytest.raises(RequestError) as caught:
            weir.stream_chat(**{"messages": HI, **wrong})
        assert caught.value.param == param

    async def test_there_is_nobody_to_ask(self, weir: Weir) -> None:
        with pytest.raises(RequestError, match="no provider is registered"):
            weir.stream_chat(HI)


class TestLeaving:
    async def test_a_streaming_context_closes_what_is_open(self, weir: Weir) -> None:
        async with ScriptedUpstream(hang_after(1)) as upstream:
            await register(weir, upstream.url)
            async with weir.streaming_context() as generator:
                answer = generator.generate(HI)
                async for event in answer:
                    if isinstance(event, TextDelta):
                        break
            await upstream.disconnected()
            assert (await weir.get_statistics())["active_streams"] == 0, "the context was left before the stream ended"
            assert await play(answer) == [], "a stream that was closed goes on"

    async def test_a_break_alone_closes_it_soon(self, weir: Weir) -> None:
        async with ScriptedUpstream(hang_after(1)) as upstream:
            await register(weir, upstream.url)
            async for event in weir.stream_chat(HI):
                if isinstance(event, TextDelta):
                    break
            await upstream.disconnected()

    async def test_closing_weir_ends_what_runs(self) -> None:
        async with ScriptedUpstream(hang_after(1), hang_before()) as upstream:
            async with Weir.open() as weir:
                await register(weir, upstream.url)
                waits, hangs = weir.stream_chat(HI), weir.stream_chat(HI)
                await anext(waits)
                reading = asyncio.create_task(play(hangs))
                await upstream.until(lambda it: len(it.requests) == 2)
            await upstream.disconnected(2)
            assert await play(waits) == []
            (last,) = await reading
        assert isinstance(last, Abort), "who still read was not told"

    async def test_an_answer_that_nobody_read_was_never_asked_for(self, weir: Weir) -> None:
        async with ScriptedUpstream(text("hi")) as upstream:
            await register(weir, upstream.url)
            async with weir.streaming_context() as generator:
                generator.generate(HI)
        assert upstream.requests == []

    async def test_a_cancelled_reader_is_cancelled(self, weir: Weir) -> None:
        async with ScriptedUpstream(hang_after(0)) as upstream:
            await register(weir, upstream.url)
            reading = asyncio.create_task(play(weir.stream_chat(HI)))
            await upstream.until(lambda it: bool(it.requests))
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await upstream.disconnected()


class TestModes:
    async def test_a_context_has_a_mode_and_fields_for_every_answer(self, weir: Weir) -> None:
        async with ScriptedUpstream(text("a ", "b ", "c")) as upstream:
            await register(weir, upstream.url)
            config = GeneratorConfig(buffer_size=200, flush_interval=60)
            async with weir.streaming_context(GeneratorMode.BUFFERED, config, temperature=0) as generator:
                events = await play(generator.generate(HI))
                await play(generator.generate(HI, temperature=1))
        assert [event.content for event in events if isinstance(event, TextDelta)] == ["a b c"]
        assert [request.body["temperature"] for request in upstream.requests] == [0, 1]

    async def test_a_wrong_mode_is_told_at_once(self, weir: Weir) -> None:
        with pytest.raises(RequestError, match="sideways"):
            async with weir.streaming_context("sideways"):
                pass

    async def test_several_providers_answer_into_one_stream(self, weir: Weir) -> None:
        async with ScriptedUpstream(text("from a")) as a, ScriptedUpstream(cut_after(1)) as b:
            await register(weir, a.url, "a")
            await register(weir, b.url, "b")
            events = await play(weir.stream_chat(HI, provider_ids=["a", "b"]))
        assert text_of([event for event in events if event.source == "a"]) == "from a"
        assert isinstance(events[-1], Finish), "one complete answer is an answer"


class TestSessions:
    async def test_a_session_goes_on_under_its_id(self, weir: Weir) -> None:
        async with ScriptedUpstream(text("hello")) as upstream:
            await register(weir, upstream.url)
            await play(weir.create_session("u1", "s1").stream_chat(HI))
            await play(weir.create_session("u1", "s1").stream_chat([{"role": "user", "content": "more"}]))
            await play(weir.create_session("u2", "s1").stream_chat(HI))
        said = [[message["content"] for message in request.body["messages"]] for request in upstream.requests]
        assert said == [["hi"], ["hi", "hello", "more"], ["hi"]], "another user's session is another session"

    async def test_it_can_be_read_and_forgotten(self, weir: Weir) -> None:
        session = weir.create_session()
        assert await session.load() is None
        async with ScriptedUpstream(text("hello")) as upstream:
            await register(weir, upstream.url)
            assert [data async for data in session.stream_chat(HI, stream_format="openai")][-1] == b"data: [DONE]\n\n"
        kept = await session.load()
        assert kept is not None
        assert [turn.state for turn in kept.turns] == ["finished"]
        assert (await weir.get_statistics())["active_sessions"] == 1
        assert await session.delete()
        assert not await session.delete()

    async def test_its_id_has_a_shape(self, weir: Weir) -> None:
        with pytest.raises(RequestError, match="session_id"):
            weir.create_session(session_id="no/slashes")


class TestDurable:
    async def test_it_is_read_on_from_where_a_reader_left_it(self, weir: Weir) -> None:
        gate = asyncio.Event()
        async with ScriptedUpstream([*begun("one"), gate, *text("two")[2:]]) as upstream:
            await register(weir, upstream.url)
            reading = weir.stream_chat(HI, weir={"durable": True})
            async for event in reading:
                if isinstance(event, TextDelta):
                    break
            assert reading.position, "there is nowhere to go on from"
            await reading.aclose()
            gate.set()
            assert text_of(await play(weir.read_stream(reading.id, reading.position))) == "two"
            assert text_of(await play(weir.read_stream(reading.id))) == "onetwo"
        assert (len(upstream.requests), upstream.disconnects) == (1, 0), "its reader's leaving ended it"

    async def test_what_cannot_be_read_says_why(self, weir: Weir) -> None:
        (event,) = await play(weir.read_stream("nobody"))
        assert isinstance(event, Error)
        assert event.code == "stream_not_found"
        with pytest.raises(RequestError, match="no position"):
            weir.read_stream("nobody", "17")

    async def test_other_answers_have_no_position(self, weir: Weir) -> None:
        async with ScriptedUpstream(text("hi")) as upstream:
            await register(weir, upstream.url)
            reading = weir.stream_chat(HI)
            await play(reading)
            assert reading.position == ""


async def test_a_reader_can_be_steered_from_elsewhere(weir: Weir) -> None:
    async with ScriptedUpstream(hang_after(1), text("short")) as upstream:
        await register(weir, upstream.url)
        answer = weir.stream_chat(HI)
        events = [await anext(answer), await anext(answer)]
        reading = asyncio.create_task(play(answer))
        told = await weir.control(answer.id, "steer", instruction="Be brief.")
        events += await reading
    assert text_of(events) == "la short"
    assert events[told["position"] - 1].__class__.__name__ == "Steered"


async def test_two_live_side_by_side() -> None:
    async with Weir.open() as one, Weir.open() as other:
        await register(one, refuse())
        assert (one.list_providers(), other.list_providers()) == (["main"], [])


async def test_a_provider_of_the_programs_own(weir: Weir) -> None:
    class Own(BaseProviderAdapter):
        async def stream_chat(
            self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
        ) -> AsyncGenerator[Event, None]:
            yield Start()
            yield TextDelta(content="mine")
            yield Finish()

    weir.registry.add_adapter("own", Own)
    await weir.register_provider(ProviderConfig(provider_id="own", provider_type="own", model_name="none"))
    assert text_of(await play(weir.stream_chat(HI, provider_id="own"))) == "mine"
