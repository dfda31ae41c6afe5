"""Agents as providers: over HTTP, from a Weir that has agno; their events are in agno_cases.py, run from here.

agno is installed beside the rest, in .venv-agno (`make test` makes it): it is an extra that Weir does without.
"""

import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from plugins.agno_agent import AgnoAdapter
from proxy.errors import ConfigError
from proxy.provider import ProviderConfig
from proxy.registry import Registry
from proxy.testing import Answer, Script, ScriptedUpstream, chunk, cut_after, sse, status, text
from tests.process import ROOT, Weir, call, chat, weir

pytestmark = pytest.mark.anyio

PYTHON = ROOT / ".venv-agno" / "bin" / "python"
needs_agno = pytest.mark.skipif(not PYTHON.exists(), reason="AGENTS ARE NOT TESTED: `make test` makes .venv-agno")
FILE = """
plugins: [plugins.agno_agent]
providers:
  - provider_id: agno_native
    provider_type: agno_native
    model_name: writer
    params: {agent: "tests.plugins.agno_agents:writer"}
    retry: {max_attempts: 1}
"""
TOOL = {
    "index": 0,
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
}
ASKS: Script = [Answer(), sse(chunk({"tool_calls": [TOOL]}), chunk(finish="tool_calls"), "[DONE]")]


Served = tuple[Weir, ScriptedUpstream]
Serving = Callable[..., Served]


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Served]:
    """A Weir with an agent, and the agent's model: one for all tests, since agno takes seconds to import."""
    path = tmp_path_factory.mktemp("agno")
    async with (
        ScriptedUpstream() as upstream,
        weir(path, FILE, python=str(PYTHON), UPSTREAM=upstream.url) as server,
    ):
        yield server, upstream


@pytest.fixture
def serving(served: Served) -> Serving:
    """Makes the model play these scripts from now on."""
    server, upstream = served

    def play(*scripts: Script) -> Served:
        upstream.scripts, upstream.requests = scripts, []
        return server, upstream

    return play


async def streamed(server: Weir, path: str = "/v1/chat/completions", **fields: Any) -> list[str]:
    """The data of every event of one streamed chat."""
    body = msgspec.json.encode(chat(model="agno_native", stream=True, **fields))
    url = f"{server.url}{path}"
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as response:
        lines = (await response.text()).split("\n\n")
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


@needs_agno
async def test_an_agent_is_a_provider_like_any_other(serving: Serving) -> None:
    server, upstream = serving(ASKS, text("It is ", "sunny.", usage=(20, 5)))
    code, answer = await call(f"{server.url}/v1/chat/completions", chat("Rome?", "agno_native"))
    assert code == 200, answer
    assert answer["model"] == "writer"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "It is sunny."}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (20, 5)
    assert upstream.requests[1].body["messages"][-1]["content"] == "sunny in Rome", "the agent ran its tool"
    assert "Traceback" not in server.log


@needs_agno
async def test_the_agents_own_tools_are_no_tool_calls(serving: Serving) -> None:
    """A client that saw them would run them, too."""
    server, _ = serving(ASKS, text("It is ", "sunny.", usage=(20, 5)))
    *chunks, done = await streamed(server, stream_options={"include_usage": True})
    assert done == "[DONE]"
    assert not any("tool" in data for data in chunks), chunks
    deltas = [choice["delta"] for data in chunks for choice in msgspec.json.decode(data)["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == "It is sunny."
    assert msgspec.json.decode(chunks[-1])["usage"]["total_tokens"] == 25


@needs_agno
async def test_the_streaming_api_shows_what_the_agent_does(serving: Serving) -> None:
    server, _ = serving(ASKS, text("It is ", "sunny."))
    events = [msgspec.json.decode(data) for data in await streamed(server, "/api/streaming/chat")]
    asked, answered = [event for event in events if event["type"].startswith("tool-")]
    assert (asked["type"], asked["name"], asked["input"]) == ("tool-input-available", "weather", {"city": "Rome"})
    assert (answered["type"], answered["output"]) == ("tool-output-available", "sunny in Rome")
    assert asked["id"] == answered["id"]


@needs_agno
async def test_what_breaks_within_an_agent_is_told(serving: Serving) -> None:
    server, upstream = serving(status(500, "no power"), cut_after(2))
    code, answer = await call(f"{server.url}/v1/chat/completions", chat("hi", "agno_native"))
    assert (code, "no power" in answer["error"]["message"]) == (502, True), answer
    assert len(upstream.requests) == 1, "neither agno nor its model's SDK may ask again"
    *_, last = await streamed(server)
    assert "finish_reason" in msgspec.json.decode(last)["error"]["message"], "it was cut, and looks complete"


@needs_agno
async def test_check_finds_what_is_wrong_with_an_agent(tmp_path: Path) -> None:
    (path := tmp_path / "providers.yaml").write_text(FILE.replace(":writer", ":author"))
    done = subprocess.run([PYTHON, "-m", "proxy", "check", path], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "providers.yaml:4" in done.stderr
    assert "author is not there; agents in tests.plugins.agno_agents: writer" in done.stderr


@needs_agno
def test_the_adapter_within_agnos_environment() -> None:
    """A plain pytest run of agno_cases.py; its names are in the output if one fails."""
    cases = [str(PYTHON), "-m", "pytest", "tests/plugins/agno_cases.py"]
    done = subprocess.run(cases, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_without_agno_the_operator_is_told_what_to_install() -> None:
    adapter = Registry.with_plugins(["plugins.agno_agent"]).adapter("agno_native")
    assert adapter is AgnoAdapter
    params = {"agent": "my_agents:writer"}
    config = ProviderConfig(provider_id="a", provider_type="agno_native", model_name="m", params=params)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigError, match=r"pip install .*agno\.lock") as caught:
            await adapter(config, session).create_model()
    assert caught.value.code == "not_installed", "the other providers serve nevertheless"
