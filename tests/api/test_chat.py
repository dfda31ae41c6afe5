"""POST /v1/chat/completions: what passes untouched, and what is told to whoever sends something else."""

import asyncio
import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.testing import ScriptedUpstream, chunk, sse, status, text
from tests.server import Server, chat, serving

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
HEAD = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\n".encode()


async def test_openais_sdk_streams_and_asks(server: Server) -> None:
    async with ScriptedUpstream(text("Hel", "lo")) as upstream, server.openai() as client:
        await server.register(upstream)
        whole = await client.chat.completions.with_raw_response.create(
            model="main", messages=[{"role": "user", "content": "hi"}]
        )
        assert whole.parse().choices[0].message.content == "Hello"
        assert whole.parse().usage.total_tokens == 7  # type: ignore[union-attr]
        assert (whole.headers["x-weir-provider"], whole.headers["x-weir-attempts"]) == ("main", "1")
        async with client.chat.completions.stream(
            model="main", messages=[{"role": "user", "content": "hi"}], stream_options={"include_usage": True}
        ) as stream:
            completion = await stream.get_final_completion()
        assert completion.choices[0].message.content == "Hello"
        assert completion.usage == whole.parse().usage


UNUSUAL = {
    "x_unknown": {"a": [1, None, {"b": "漢\u2028"}]},
    "seed": 2**53,
    "temperature": 0,
    "logit_bias": {"50256": -100},
    "stop": ["\n\n", ""],
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    "reasoning_effort": "minimal",
    "metadata": {},
    "n": 2,
    "parallel_tool_calls": False,
    "service_tier": None,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}, "x": 1}],
}
CONTENT = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]


@pytest.mark.parametrize("stream", [True, False])
async def test_fields_reach_the_upstream_as_they_came(stream: bool, server: Server) -> None:
    both = [chunk({"content": "a"}, index=0), chunk({"content": "b"}, index=1), chunk(finish="stop", index=1)]
    async with ScriptedUpstream([*text("a")[:-1], sse(*both), sse("[DONE]")]) as upstream:
        await server.register(upstream, headers={"x-org": "org-1"})
        message = {"role": "user", "content": CONTENT, "name": "x", "x_more": True}
        body = {"model": "main", "messages": [message], "stream": stream, **UNUSUAL}
        got = await server.ask("POST", PATH, {**body, "weir": {"fallback": False}}) if not stream else None
        if stream:
            await server.streamed(**{**body, "weir": {"timeouts": {"total": 5}}})
        (request,) = upstream.requests
    assert got is None or got.status == 200, f"{got}"
    asked = {**body, "model": "m", "stream": True, "stream_options": {"include_usage": True}}
    assert request.body == asked, "what the client sent and what arrived are not the same"
    assert request.headers["x-org"] == "org-1"


async def test_other_stream_options_are_kept(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        await server.streamed(stream_options={"include_usage": False, "include_obfuscation": False})
        assert upstream.requests[0].body["stream_options"] == {"include_usage": True, "include_obfuscation": False}


async def test_chunks_leave_byte_for_byte(server: Server) -> None:
    odd = ['{ "choices":[ {"index":0,"delta":{"content":"漢\u2028\U0001f600"},"x":1e-07} ] ,"y":null}'] * 2
    async with ScriptedUpstream([*text("a")[:-3], sse(*odd), *text()[-3:]]) as upstream:
        await server.register(upstream)
        got = await server.streamed()
        assert [data for data in got if data.startswith(b"{ ")] == [one.encode() for one in odd]
        assert got[-1] == b"[DONE]"


async def test_tokens_are_told_to_those_who_asked(server: Server) -> None:
    async with ScriptedUpstream(text("a", usage=(3, 1))) as upstream:
        await server.register(upstream)
        assert b'"usage"' not in b"".join(await server.streamed())
        told = await server.streamed(stream_options={"include_usage": True})
        assert json.loads(told[-2])["usage"] == {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


@pytest.mark.parametrize("model", ["main", "m", "fast", "main/any-model/at:all"])
async def test_a_model_goes_by_several_names(model: str, server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream, models=["fast"])
        assert (await server.ask("POST", PATH, chat(model=model))).status == 200
        assert upstream.requests[0].body["model"] == (model.partition("/")[2] or "m")


async def test_an_upstreams_no_is_passed_on_in_its_own_words(server: Server) -> None:
    async with ScriptedUpstream(status(400, "temperature must be below 2")) as upstream:
        await server.register(upstream)
        got = await server.ask("POST", PATH, chat(temperature=3))
        assert (got.status, got.message, len(upstream.requests)) == (400, "temperature must be below 2", 1)


def deep(levels: int, inner: str = "1") -> bytes:
    return b'{"a":' * levels + inner.encode() + b"}" * levels


BAD: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "JSON"),
    "not JSON": (b"model=x", 400, "JSON"),
    "half of it": (b'{"model": "main", "messages": [', 400, "JSON"),
    "two of them": (b"{} {}", 400, "JSON"),
    "a list": (b"[]", 400, "object"),
    "null": (b"null", 400, "object"),
    "text": (b'"hi"', 400, "object"),
    "invalid UTF-8": (b'{"model": "\xff\xfe"}', 400, "JSON"),
    "invalid UTF-8 in a field of no interest": (
        b'{"model":"main","messages":[{"role":"user","content":"\xc3("}]}',
        400,
        "JSON",
    ),
    "a lone surrogate": (b'{"model":"main","messages":[{"role":"user","content":"\\ud800"}]}', 400, "JSON"),
    "NaN": (b'{"model":"main","messages":[{"role":"user"}],"temperature":NaN}', 400, "JSON"),
    "Infinity": (b'{"model":"main","messages":[{"role":"user"}],"temperature":-Infinity}', 400, "JSON"),
    "a number without end": (b'{"model":"main","messages":[{"role":"user"}],"n":' + b"9" * 5000 + b"}", 400, ""),
    "1e999": (b'{"model":"main","messages":[{"role":"user"}],"temperature":1e999}', 400, "JSON"),
    "nested 100,000 deep": (b"[" * 100_000, 400, "nested"),
    "objects nested 100,000 deep": (deep(100_000), 400, "nested"),
    "messages nested 900 deep": (
        b'{"model":"main","messages":[{"role":"user","content":' + deep(900) + b"}]}",
        400,
        "nested",
    ),
    "weir nested 90 deep": (b'{"model":"main","messages":[{"role":"user"}],"weir":' + deep(90) + b"}", 400, "weir"),
    "duplicate keys, the last of them wrong": (
        b'{"model":"main","model":1,"messages":[{"role":"user"}]}',
        400,
        "model",
    ),
}
FIELDS: dict[str, tuple[dict[str, Any], int, str]] = {
    "no model": ({"model": None}, 400, "model"),
    "an empty model": ({"model": ""}, 400, "model"),
    "a number for a model": ({"model": 1}, 400, "model"),
    "an unknown model": ({"model": "gpt-9"}, 404, "available: m, main"),
    "an unknown provider": ({"model": "nobody/gpt-4o"}, 404, "available: m, main"),
    "a model of 1 MB": ({"model": "x" * 1_000_000}, 404, ""),
    "a model with line breaks": ({"model": "a\r\nx: y\0"}, 404, "not served"),
    "no messages": ({"messages": None}, 400, "messages"),
    "empty messages": ({"messages": []}, 400, "messages"),
    "messages in one text": ({"messages": "hi"}, 400, "messages"),
    "a message without role": ({"messages": [{"content": "hi"}]}, 400, "messages[0].role"),
    "a message that is null": ({"messages": [None]}, 400, "messages[0]"),
    "one bad message of 10,000": ({"messages": [{"role": "user"}] * 9_999 + [{"role": 1}]}, 400, "messages[9999].role"),
    "stream: yes": ({"stream": "yes"}, 400, "stream"),
    "stream: 1": ({"stream": 1}, 400, "stream"),
    "stream_options: true": ({"stream_options": True}, 400, "stream_options"),
    "n: 0": ({"n": 0}, 400, "n"),
    "n: 1.5": ({"n": 1.5}, 400, "n"),
    "max_tokens: -1": ({"max_tokens": -1}, 400, "max_tokens"),
    "max_completion_tokens: many": ({"max_completion_tokens": "many"}, 400, "max_completion_tokens"),
    "temperature: -0.1": ({"temperature": -0.1}, 400, "temperature"),
    "top_p: -1": ({"top_p": -1}, 400, "top_p"),
    "tools: {}": ({"tools": {}}, 400, "tools"),
    "tools: [1]": ({"tools": [1]}, 400, "tools[0]"),
    "user: 7": ({"user": 7}, 400, "user"),
    "weir: []": ({"weir": []}, 400, "weir"),
    "weir.unknown": ({"weir": {"unknown": 1}}, 400, "weir"),
    "weir.retry.max_attempts: 0": ({"weir": {"retry": {"max_attempts": 0}}}, 400, "weir.retry.max_attempts"),
    "weir.retry.unknown": ({"weir": {"retry": {"unknown": 1}}}, 400, "weir.retry"),
    "weir.timeouts.total: -1": ({"weir": {"timeouts": {"total": -1}}}, 400, "weir.timeouts.total"),
    "weir.timeouts.total: 1e300": ({"weir": {"timeouts": {"total": 1e300}}}, 400, "weir.timeouts.total"),
    "weir.fallback: 0": ({"weir": {"fallback": 0}}, 400, "weir.fallback"),
}
BAD |= {
    name: (json.dumps({k: v for k, v in {**chat(), **change}.items() if v is not None}).encode(), code, said)
    for name, (change, code, said) in FIELDS.items()
}


@pytest.fixture(scope="module")
async def one() -> Any:
    """Weir with one provider that answers everything."""
    async with serving() as server, ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        yield server


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_a_4xx_that_names_the_fault_quickly(name: str, one: Server) -> None:
    body, code, said = BAD[name]
    began = time.monotonic()
    got = await one.ask("POST", PATH, body)
    assert (got.status, said in got.message) == (code, True), f"{name}: {got.status} {got.body}"
    assert got.body["error"]["type"] == "invalid_request_error"
    assert time.monotonic() - began < 1, f"{name} took {time.monotonic() - began:.1f} s"
    assert [got.headers[name] for name in ("x-weir-provider", "x-weir-attempts")] == ["none", "0"]
    assert got.headers["x-request-id"]


async def test_ten_thousand_messages_are_not_too_many(one: Server) -> None:
    messages = [{"role": "user", "content": "hi"}] * 10_000
    assert (await one.ask("POST", PATH, {**chat(), "messages": messages})).status == 200


async def test_of_duplicate_keys_the_last_one_counts(one: Server) -> None:
    got = await one.ask("POST", PATH, b'{"model":1,"model":"main","messages":[{"role":"user","content":"hi"}]}')
    assert got.status == 200


async def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(one: Server) -> None:
    code, body = await one.raw(
        b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: 104857600\r\n\r\n" % PATH.encode()
    )
    assert (code, json.loads(body)["error"]["code"]) == (413, "body_too_large")
    waiting = HEAD + b"expect: 100-continue\r\ncontent-length: 104857600\r\n\r\n"
    assert (await one.raw(waiting))[0] == 413, "a client that waits for our word was told to go on"


async def test_a_body_that_grows_too_large_without_being_announced_is_refused() -> None:
    async with serving(max_body=100_000) as server:

        async def endless() -> Any:
            while True:
                yield b" " * 65536

        async with asyncio.timeout(10):
            refused = await server.session.post(server.url + PATH, data=endless(), expect100=False)
        assert (refused.status, (await refused.json())["error"]["code"]) == (413, "body_too_large")
        exactly = json.dumps(chat()).encode().ljust(100_000)
        assert (await server.ask("POST", PATH, exactly)).status == 404
        assert (await server.ask("POST", PATH, exactly + b" ")).status == 413


async def test_a_body_that_stops_coming_is_not_waited_for_forever() -> None:
    async with serving(stall=0.05) as server:
        code, body = await server.raw(HEAD + b"content-length: 10\r\n\r\n{")
        assert (code, json.loads(body)["error"]["code"]) == (408, "body_timeout")


async def test_a_client_that_leaves_while_it_sends_is_no_error(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(HEAD + b"expect: 100-continue\r\ncontent-length: 10\r\n\r\n{")
    async with asyncio.timeout(10):
        await reader.readuntil(b"100 Continue\r\n\r\n")  # so it is being read
        writer.close()
        with caplog.at_level("DEBUG", "proxy"):
            while "went away while it sent" not in caplog.text:
                await asyncio.sleep(0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["main", "main/", "/", "user", "system", "tool", "auto"]),
    st.lists(st.none() | st.text(max_size=3) | st.integers(-2, 2), max_size=3),
    st.dictionaries(
        st.sampled_from(["role", "content", "include_usage", "total", "max_attempts", "x"]), st.integers(-2, 2)
    ),
)
NAMES = """
    model messages stream stream_options n max_tokens max_completion_tokens temperature top_p tools tool_choice user
    weir stop seed logit_bias response_format functions metadata modalities audio prediction reasoning_effort
"""
BODIES = st.dictionaries(st.sampled_from(NAMES.split()), ODD, max_size=6)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=BODIES)
async def test_no_body_is_an_error_of_ours(changes: dict[str, Any], one: Server) -> None:
    for body in (changes, {**chat(), **changes}):
        got = await one.ask("POST", PATH, body)
        if got.status == 502:  # two choices were asked for, and the provider gave one
            assert "without a finish_reason" in got.message, f"{body}: {got.message}"
        else:
            assert got.status in (200, 400, 404), f"{body}: {got.status} {got.body}"
            assert got.status == 200 or got.message


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=40) | st.recursive(ODD, lambda inner: st.lists(inner)).map(msgspec.json.encode))
async def test_no_bytes_are_an_error_of_ours(body: bytes, one: Server) -> None:
    got = await one.ask("POST", PATH, body)
    assert got.status == 400
    assert got.message
