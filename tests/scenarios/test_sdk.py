"""Someone points an unmodified OpenAI SDK at Weir: first at the real local model, then at an upstream of theirs."""

import subprocess
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from proxy.testing import ScriptedUpstream, begun, chunk, cut_after, sse, status, text
from tests.process import ROOT, Weir, call, provider, weir

pytestmark = pytest.mark.anyio

HELLO: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Weir]:
    """Weir with the repository's own providers.yaml, as `make run` starts it."""
    async with weir(tmp_path_factory.mktemp("weir"), str(ROOT / "providers.yaml")) as running:
        yield running


@pytest.fixture
async def client(served: Weir) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_real_tokens_stream_from_a_real_model(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="local", messages=HELLO, max_tokens=12, temperature=0, stream=True
    )
    chunks = [chunk async for chunk in stream]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said.strip(), "the model said nothing"
    assert chunks[-1].choices, "a usage chunk came although nobody asked for it"
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


async def test_an_answer_that_is_not_streamed_is_the_same_answer(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="smollm2", messages=HELLO, max_tokens=12, temperature=0, seed=1, stream=True
    )
    streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    whole = await client.chat.completions.create(model="smollm2", messages=HELLO, max_tokens=12, temperature=0, seed=1)
    assert whole.choices[0].message.content == streamed
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 0, "the tokens were not counted"


async def test_usage_comes_to_those_who_ask(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="local", messages=HELLO, max_tokens=4, stream=True, stream_options={"include_usage": True}
    )
    *_, last = [chunk async for chunk in stream]
    assert last.usage is not None, "the usage chunk is missing"
    assert last.usage.completion_tokens > 0


def test_the_blocking_sdk_works_as_well(served: Weir) -> None:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        names = [model.id for model in client.models.list()]
        assert names == ["local", "SmolLM2-135M-Instruct", "smollm2"]
        assert client.models.retrieve("smollm2").id == "smollm2"
        answer = client.chat.completions.create(model="local", messages=HELLO, max_tokens=4)
        assert answer.choices[0].message.content


async def test_what_the_client_does_wrong_is_its_own_error_class(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="smollm2"):
        await client.chat.completions.create(model="gpt-9", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        await client.chat.completions.create(model="local", messages=HELLO, max_tokens=-1)
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nothing")


async def test_the_newest_sdk_works_too(served: Weir) -> None:
    script = (
        "import openai, sys; client = openai.OpenAI(base_url=sys.argv[1], api_key='none')\n"
        "stream = client.chat.completions.create(model='local', max_tokens=4, stream=True,\n"
        "    messages=[{'role': 'user', 'content': 'Say hello.'}])\n"
        "print(openai.VERSION.split('.')[0], len([chunk for chunk in stream]) > 1)"
    )
    python = ROOT / ".venv-clients" / "bin" / "python"
    assert python.exists(), "the clients' environment is missing: make test builds it"
    done = subprocess.run([python, "-c", script, f"{served.url}/v1"], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["3", "True"], done.stderr


async def test_tools_reasoning_and_several_choices_arrive_whole(served: Weir, client: openai.AsyncOpenAI) -> None:
    call_start = {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a"'}}
    script = [
        *begun(),
        sse(chunk({"reasoning_content": "two and two"})),
        sse(chunk({"tool_calls": [call_start]})),
        sse(chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 2}"}}]})),
        sse(chunk(finish="tool_calls")),
        sse(chunk({"role": "assistant", "content": "four"}, index=1)),
        sse(chunk(index=1, finish="stop")),
        sse("[DONE]"),
    ]
    async with ScriptedUpstream(script) as upstream:
        await call(f"{served.url}/providers", provider(upstream.url, "tools"))
        answer = await client.chat.completions.create(model="tools", messages=HELLO, n=2, tools=[])
    first, second = answer.choices
    assert first.message.tool_calls is not None
    assert first.message.tool_calls[0].model_dump()["function"] == {"name": "add", "arguments": '{"a": 2}'}
    assert first.message.model_extra == {"reasoning_content": "two and two"}
    assert second.message.content == "four"
    asked = upstream.requests[0].body
    assert (asked["n"], asked["tools"], asked["stream_options"]) == (2, [], {"include_usage": True})


async def test_a_cut_stream_never_looks_complete(served: Weir, client: openai.AsyncOpenAI) -> None:
    """OpenAI's SDKs take a clean end without finish_reason for success: Weir must not let it pass."""
    async with ScriptedUpstream(cut_after(2)) as upstream:
        await call(f"{served.url}/providers", provider(upstream.url, "cut"))
        stream = await client.chat.completions.create(model="cut", messages=HELLO, stream=True)
        said = ""
        with pytest.raises(openai.APIError, match="finish_reason"):
            async for part in stream:
                said += part.choices[0].delta.content or ""
    assert said == "la la ", "what was said before the break is the client's"


async def test_fallback_does_not_show(served: Weir, client: openai.AsyncOpenAI) -> None:
    async with ScriptedUpstream(status(500)) as broken, ScriptedUpstream(text("from ", "the other")) as sound:
        await call(f"{served.url}/providers", provider(broken.url, "one", models=["pair"], retry={"max_attempts": 1}))
        await call(f"{served.url}/providers", provider(sound.url, "two", models=["pair"], priority=2))
        raw = await client.chat.completions.with_raw_response.create(model="pair", messages=HELLO)
    assert raw.parse().choices[0].message.content == "from the other"
    assert (raw.headers["x-weir-provider"], raw.headers["x-weir-attempts"]) == ("two", "2")
