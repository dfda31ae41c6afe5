"""The relay, over real HTTP: what is asked, what comes back byte for byte, and what every fault is called."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.adapters import http
from proxy.adapters.openai import OpenAIAdapter
from proxy.errors import Kind, ProviderError
from proxy.events import Event, Finish, FinishStep, Start, TextDelta, Usage
from proxy.provider import ProviderConfig
from proxy.testing import (
    Answer,
    Fault,
    Script,
    ScriptedUpstream,
    begun,
    broken_json,
    check_adapter,
    chunk,
    cut_after,
    error_in_stream,
    hang_after,
    hang_before,
    html,
    play,
    refuse,
    reset_after,
    sse,
    status,
    text,
    text_of,
)

pytestmark = pytest.mark.anyio

ASKED = [{"role": "user", "content": "hi"}]
KEY = "sk-the-operators-own"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def trusting() -> AsyncIterator[aiohttp.ClientSession]:
    """A session that looks at the operator's environment."""
    async with aiohttp.ClientSession(trust_env=True) as session:
        yield session


def adapter(url: str, session: aiohttp.ClientSession, **fields: Any) -> OpenAIAdapter:
    given = {"provider_id": "a", "provider_type": "openai_compatible", "model_name": "m", "api_key": KEY, **fields}
    return OpenAIAdapter(ProviderConfig(base_url=url, **given), session)


async def ask(upstream: ScriptedUpstream, session: aiohttp.ClientSession, **fields: Any) -> list[Event]:
    return await play(adapter(upstream.url, session).stream_chat(ASKED, **fields))


async def failure(script: Script, session: aiohttp.ClientSession, **config: Any) -> ProviderError:
    async with ScriptedUpstream(script) as upstream:
        with pytest.raises(ProviderError) as raised:
            await play(adapter(upstream.url, session, **config).stream_chat(ASKED))
    return raised.value


# What is asked


async def test_asks_for_the_providers_model_with_its_key(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream(text("Hello")) as upstream:
        await play(adapter(upstream.url, session, headers={"X-Team": "blue"}).stream_chat(ASKED))
    (request,) = upstream.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.body == {
        "model": "m",
        "messages": ASKED,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-team"] == "blue"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity", "a compressing server holds tokens back"


async def test_without_a_key_none_is_sent(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream(text("Hello")) as upstream:
        await play(adapter(upstream.url, session, api_key=None).stream_chat(ASKED))
    assert "authorization" not in upstream.requests[0].headers


async def test_a_header_of_the_operators_takes_the_place_of_ours(session: aiohttp.ClientSession) -> None:
    headers = {"Authorization": "Basic YTpi", "User-Agent": "ours"}
    async with ScriptedUpstream(text("Hello")) as upstream:
        await play(adapter(upstream.url, session, headers=headers).stream_chat(ASKED))
    sent = upstream.requests[0].headers
    assert (sent["authorization"], sent["user-agent"]) == ("Basic YTpi", "ours")


async def test_fields_pass_untouched_whatever_their_names(session: aiohttp.ClientSession) -> None:
    fields: dict[str, Any] = {
        "self": 1,
        "messages_": 2,
        "body": 3,
        "n": 1,
        "unknown": {"nested": [1.5, None, {"é\u2028": True}]},
        "big": 123456789012345678901234567890,
    }
    tools = [{"type": "function", "function": {"name": "f", "x_unknown": [1]}}]
    async with ScriptedUpstream(text("Hello")) as upstream:
        await play(adapter(upstream.url, session).stream_chat(ASKED, tools, **fields))
    body = upstream.requests[0].body
    assert {name: body[name] for name in fields} == fields
    assert body["tools"] == tools


async def test_ids_that_gemini_signed_are_cut_but_where_gemini_may_be_behind_it(session: aiohttp.ClientSession) -> None:
    result = {"role": "tool", "tool_call_id": "call_1__thought__c2ln", "content": "x"}
    async with ScriptedUpstream(text("Hello")) as upstream:
        for kind in ("openai", "openai_compatible"):
            await play(adapter(upstream.url, session, provider_type=kind).stream_chat([result]))
        ids = [request.body["messages"][0]["tool_call_id"] for request in upstream.requests]
    assert ids == ["call_1", "call_1__thought__c2ln"]


async def test_usage_is_always_asked_for_and_other_stream_options_are_kept(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream(text("Hello")) as upstream:
        await ask(upstream, session, stream_options={"include_usage": False, "include_obfuscation": False})
        await ask(upstream, session, stream_options=None)
        by_the_operator = adapter(upstream.url, session, params={"stream_options": {"x": 1}})
        await play(by_the_operator.stream_chat(ASKED))
    sent = [request.body["stream_options"] for request in upstream.requests]
    assert sent == [
        {"include_usage": True, "include_obfuscation": False},
        {"include_usage": True},
        {"include_usage": True, "x": 1},
    ]


async def test_the_clients_fields_win_over_the_operators_defaults(session: aiohttp.ClientSession) -> None:
    params = {"temperature": 0.1, "top_k": 5, "stream": False, "messages": []}
    async with ScriptedUpstream(text("Hello")) as upstream:
        await play(adapter(upstream.url, session, params=params).stream_chat(ASKED, temperature=0.9, model="other"))
    body = upstream.requests[0].body
    assert (body["model"], body["temperature"], body["top_k"]) == ("other", 0.9, 5)
    assert (body["stream"], body["messages"]) == (True, ASKED)


async def test_who_refuses_stream_options_gets_none(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream(text("Hello")) as upstream:
        asking = adapter(upstream.url, session, params={"stream_options": None})
        await play(asking.stream_chat(ASKED, stream_options={"include_usage": True}))
    assert "stream_options" not in upstream.requests[0].body


# What comes back


async def test_an_answer_is_a_series_of_events(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream(text("Hel", "lo", usage=(5, 2), finish="length")) as upstream:
        events = await ask(upstream, session)
    assert [type(event) for event in events] == [Start, TextDelta, TextDelta, FinishStep, Usage, Finish]
    assert text_of(events) == "Hello"
    end = events[-1]
    assert isinstance(end, Finish)
    assert end.usage is events[-2], "the end does not tell what it cost"
    assert end.usage is not None
    assert (end.usage.input_tokens, end.usage.output_tokens) == (5, 2)


ODD = [
    '{"id":"x" ,  "choices":[ {"index":0,"delta":{"role":"assistant", "content":"漢\\u6f22"},"logprobs":null}],"z":[]}',
    '{"choices":[{"delta":{"content":"a","reasoning":"b"},"x":1.0e2}],"unknown":{"a":1,"a":2}}',
    '\t{ "choices" : [ { "delta" : { } , "finish_reason" : "stop" } ] }  ',
    '{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"queue_time":0.10}}',
]


async def test_every_chunk_keeps_its_bytes(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream([Answer(), sse(*ODD, "[DONE]")]) as upstream:
        events = await ask(upstream, session)
    chunks: list[bytes] = []
    for event in events[:-1]:
        assert event.raw is not None
        if not chunks or event.raw is not chunks[-1]:
            chunks.append(event.raw)
    assert [raw.decode() for raw in chunks] == ODD
    assert [event.parts for event in events] == [2, 2, 2, 2, 1, 1, 1], "parts do not count the events of a chunk"
    assert events[-1].raw is None


@pytest.mark.parametrize("ending", [b"\n", b"\r", b"\r\n"], ids=repr)
async def test_it_does_not_matter_how_the_bytes_arrive(ending: bytes, session: aiohttp.ClientSession) -> None:
    stream = (b": hi\n\nevent: x\n" + sse(*ODD, "[DONE]")).replace(b"\n", ending)
    one_by_one = [stream[place : place + 1] for place in range(len(stream))]
    headers = {"content-type": "Text/Event-Stream; charset=UTF-8"}
    async with ScriptedUpstream([Answer(200, headers), *one_by_one], [Answer(), sse(*ODD, "[DONE]")]) as upstream:
        assert await ask(upstream, session) == await ask(upstream, session)


async def test_tokens_come_as_they_are_sent(session: aiohttp.ClientSession) -> None:
    gate = asyncio.Event()
    script = [*begun("Hel"), gate, *text("lo")[2:]]
    async with ScriptedUpstream(script) as upstream, aclosing(adapter(upstream.url, session).stream_chat(ASKED)) as it:
        async with asyncio.timeout(5):
            first = [await anext(it), await anext(it)]
            assert text_of(first) == "Hel", "a token was held back until the next one"
            gate.set()
            assert text_of(await play(it)) == "lo"


# How it ends


@pytest.mark.parametrize(
    "script",
    [
        text("a"),
        text("a")[:-1],
        [*begun("a"), sse(chunk(finish="stop"))],
        [*begun("a"), sse(chunk(finish="stop")), b"data: [DONE]"],
        [*begun("a"), sse(chunk(finish="stop"), "[DONE] ")],
        [*begun("a"), sse(chunk(finish="stop")), sse("[DONE]"), b"whatever"],
        [*begun("a"), sse("", ""), b"data:\n\n", sse(chunk(finish="stop"))],
        [*text("a"), Fault.CLOSE],
        [*begun("a"), sse(chunk(finish="stop")), Fault.CLOSE],
        [*begun("a"), sse(chunk(finish="stop")), Fault.RESET],
    ],
    ids=[
        "all",
        "no DONE",
        "no usage either",
        "half a DONE",
        "DONE with a blank",
        "more after DONE",
        "heartbeats",
        "cut after DONE",
        "cut after all",
        "reset after all",
    ],
)
async def test_a_complete_answer_finishes(script: Script, session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream(script) as upstream:
        events = await ask(upstream, session)
    assert isinstance(events[-1], Finish)
    assert text_of(events) == "a"


async def test_a_body_that_stays_open_after_its_end_is_not_waited_for(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream([*text("a"), Fault.HANG]) as upstream:
        async with asyncio.timeout(3):
            assert isinstance((await ask(upstream, session))[-1], Finish)
        await upstream.disconnected()


TWO = [chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk(finish="stop")]


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ([Fault.RESET], Kind.CONNECT),
        ([Fault.CLOSE], Kind.CONNECT),
        ([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], Kind.CONNECT),
        ([Answer()], Kind.CUT),
        ([Answer(), sse("[DONE]")], Kind.CUT),
        (cut_after(0), Kind.CUT),
        (cut_after(3), Kind.CUT),
        ([*cut_after(1), sse("[DONE]")], Kind.CUT),
        ([*cut_after(1), Fault.CLOSE], Kind.CUT),
        (reset_after(0), Kind.CUT),
        (reset_after(3), Kind.CUT),
        ([Answer(), sse(*TWO, "[DONE]")], Kind.CUT),
        ([*cut_after(1), sse(chunk(finish="stop"))[:-2]], Kind.CUT),
        ([Answer(200, {"content-length": "5000"}), sse(*TWO), Fault.CLOSE], Kind.CUT),
        ([Answer(200, {"content-encoding": "gzip"}), b"this is no gzip"], Kind.CUT),
        (broken_json(), Kind.GARBLED),
        ([Answer(), sse("<html>")], Kind.GARBLED),
        ([Answer(), b"data: \xff\n\n"], Kind.GARBLED),
        (html(), Kind.GARBLED),
        ([Answer(200, {"content-type": "application/json"}), b'{"choices":[]}'], Kind.GARBLED),
        ([Answer(204, {"content-length": "0"})], Kind.GARBLED),
        (error_in_stream(), Kind.SERVER),
        (error_in_stream(after=2), Kind.SERVER),
        (error_in_stream(code=429), Kind.RATE_LIMIT),
        ([Answer(), b'error: {"code":400,"message":"too long"}\n\n', sse("[DONE]")], Kind.REJECTED),
        (status(400), Kind.REJECTED),
        (status(401), Kind.AUTH),
        (status(403), Kind.AUTH),
        (status(404), Kind.MISSING),
        (status(408), Kind.BUSY),
        (status(422), Kind.REJECTED),
        (status(429), Kind.RATE_LIMIT),
        (status(500), Kind.SERVER),
        (status(529), Kind.SERVER),
        (html(502), Kind.SERVER),
    ],
    ids=lambda value: value if isinstance(value, Kind) else repr(value)[:60],
)
async def test_every_fault_has_its_kind(script: Script, kind: Kind, session: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(5):
        error = await failure(script, session)
    assert error.kind is kind, f"{error.kind}: {error.message}"
    assert error.message, "the operator is told nothing"
    assert len(error.message) < 600


async def test_a_second_choice_that_never_began_is_missed(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream(text("a")[:-1], text("a")) as upstream:
        with pytest.raises(ProviderError, match="without a finish_reason"):
            await ask(upstream, session, n=2)
        assert isinstance((await ask(upstream, session, n=2))[-1], Finish), "it said [DONE]: it does not know n"


async def test_nobody_listens(session: aiohttp.ClientSession) -> None:
    with pytest.raises(ProviderError) as raised:
        await play(adapter(refuse(), session).stream_chat(ASKED))
    assert raised.value.kind is Kind.CONNECT


async def test_somebody_listens_but_does_not_answer_the_phone(session: aiohttp.ClientSession) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        callers = [socket.socket() for _ in range(4)]  # they fill the backlog
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(server.getsockname())
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        with pytest.raises(ProviderError) as raised:
            await play(adapter(url, session, timeouts={"connect": 0.05}).stream_chat(ASKED))
        for caller in callers:
            caller.close()
    assert (raised.value.kind, raised.value.message) == (Kind.CONNECT, "no connection within 0.05 s")


# What a refusal says


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "no such model"}}', "no such model"),
        ('{"error": "no such model"}', "no such model"),
        ('{"message": "no such model"}', "no such model"),
        ('{"detail": "no such model"}', "no such model"),
        ('{"detail": [{"msg": "no such model"}]}', '{"detail": [{"msg": "no such model"}]}'),
        ("no such model\n", "no such model"),
        ("<html>no such model</html>", "an HTML page"),
        ("", "Scripted"),
        ("{}", "Scripted"),
        ("\ufffd" * 3, "\ufffd" * 3),
        ("[" * 9000, "[" * 500 + "..."),
    ],
    ids=lambda value: value[:30],
)
async def test_a_refusal_is_told_in_the_providers_words(
    body: str, message: str, session: aiohttp.ClientSession
) -> None:
    error = await failure([Answer(404, {"content-type": "application/json"}), body.encode()], session)
    assert (error.kind, error.upstream_status, error.message) == (Kind.MISSING, 404, message)


@pytest.mark.parametrize(
    ("said", "code", "param"),
    [
        ({"code": "context_length_exceeded", "param": "messages"}, "context_length_exceeded", "messages"),
        ({"code": "content_filter", "param": None}, "content_filter", None),
        ({"code": "400", "param": ""}, "provider_error", None),
        ({"code": 400}, "provider_error", None),
        ({"code": f"no_{KEY}"}, "no_[redacted]", None),
        ("no", "provider_error", None),
    ],
)
async def test_a_refusal_keeps_the_names_that_the_provider_gives_it(
    said: Any, code: str, param: str | None, session: aiohttp.ClientSession
) -> None:
    """Whether its status repeats itself as the code, or there is none, is of no use to anybody."""
    error = await failure([Answer(400, {}), json.dumps({"error": said}).encode()], session)
    assert (error.code, error.param) == (code, param)


async def test_a_refusal_may_come_in_pieces(session: aiohttp.ClientSession) -> None:
    head, body = status(429, "slow down, please")
    assert isinstance(body, bytes)
    reading = asyncio.Event()
    async with ScriptedUpstream([head, body[:20], reading, body[20:]]) as upstream:
        asked = asyncio.create_task(ask(upstream, session))
        await upstream.until(lambda it: bool(it.requests))
        for _ in range(20):
            await asyncio.sleep(0)  # lets the first piece be read
        reading.set()
        with pytest.raises(ProviderError, match=r"^slow down, please$"):
            await asked


@pytest.mark.parametrize("fault", Fault)
async def test_a_refusal_counts_even_if_its_body_does_not_come(
    fault: Fault, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PATIENCE", 0.05)
    error = await failure([*status(429, retry_after="2")[:1], fault], session)
    assert (error.kind, error.upstream_status, error.retry_after) == (Kind.RATE_LIMIT, 429, 2)


async def test_how_long_to_wait(session: aiohttp.ClientSession) -> None:
    assert (await failure(status(429, retry_after="2"), session)).retry_after == 2
    assert (await failure(status(503, retry_after="1.5"), session)).retry_after == 1.5
    assert (await failure(status(429), session)).retry_after is None


@pytest.mark.parametrize(
    "script",
    [
        status(401, "Incorrect API key provided: sk-ab***yz."),
        status(401, f"Incorrect API key provided: {KEY}."),
        status(500, "X-Team blue-and-secret is unknown"),
        error_in_stream("Incorrect API key provided: sk-ab***yz."),
        error_in_stream(f"Incorrect API key provided: {KEY}."),
        [Answer(200, {"content-type": "text/plain"}), f"debug: {KEY}".encode()],
    ],
    ids=lambda script: repr(script)[-60:],
)
async def test_a_key_is_not_repeated(script: Script, session: aiohttp.ClientSession) -> None:
    error = await failure(script, session, headers={"X-Team": "blue-and-secret"})
    assert "[redacted]" in error.message
    assert not any(part in error.message for part in ("sk-", "yz", "operators", "blue"))


async def test_a_redirect_does_not_carry_the_key_elsewhere(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream(text("stolen")) as elsewhere:
        for code in (301, 302, 303, 307, 308):
            error = await failure([Answer(code, {"location": f"{elsewhere.url}/chat/completions"})], session)
            assert (error.kind, error.upstream_status) == (Kind.GARBLED, code)
    assert not elsewhere.requests, "the redirect was followed"


# Connections


async def test_closing_midway_ends_the_upstream_call(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream:
        stream = adapter(upstream.url, session).stream_chat(ASKED)
        await anext(stream)
        async with asyncio.timeout(1):
            await stream.aclose()
        await upstream.disconnected()


@pytest.mark.parametrize("script", [hang_before(), hang_after(0), [*status(500)[:1], Fault.HANG]], ids=repr)
async def test_a_cancelled_wait_ends_the_upstream_call(script: Script, session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream(script) as upstream:
        asked = asyncio.create_task(ask(upstream, session))
        await upstream.until(lambda it: bool(it.requests))
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await upstream.disconnected()


async def test_a_connection_serves_many_answers_and_refusals(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream(text("a"), status(429), html(), text("b")[:-1], text("c")) as upstream:
        for _ in range(5):
            try:
                await ask(upstream, session)
            except ProviderError:
                continue
        assert len(upstream.requests) == 5
    assert upstream.connections == 1, "a connection whose answer was complete was thrown away"


async def test_streams_do_not_mix_and_obey_the_rules_of_adapters(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream(text("one", " two")) as upstream:
        await check_adapter(adapter(upstream.url, session))


# The operator's environment


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("no_proxies")
async def test_the_operators_http_proxy_is_used(
    trusting: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedUpstream(text("by proxy")) as forward:
        monkeypatch.setenv("HTTP_PROXY", forward.url.removesuffix("/v1"))
        events = await play(adapter("http://upstream.invalid/v1", trusting).stream_chat(ASKED))
    assert text_of(events) == "by proxy"
    assert forward.requests[0].path == "http://upstream.invalid/v1/chat/completions"
    assert forward.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.usefixtures("no_proxies")
async def test_the_operators_exceptions_from_it_are_kept(
    trusting: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedUpstream(text("by proxy")) as forward, ScriptedUpstream(text("direct")) as upstream:
        monkeypatch.setenv("HTTP_PROXY", forward.url.removesuffix("/v1"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert text_of(await ask(upstream, trusting)) == "direct"
    assert not forward.requests


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("key", [KEY, None])
async def test_a_netrc_has_no_say_in_who_we_are(
    key: str | None, trusting: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with ScriptedUpstream(text("a")) as upstream:
        await play(adapter(upstream.url, trusting, api_key=key).stream_chat(ASKED))
    assert upstream.requests[0].headers.get("authorization") == (f"Bearer {key}" if key else None)
