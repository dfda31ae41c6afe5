"""An answer on real sockets: its first byte, its silences, its end, and clients that go away or stop reading."""

import asyncio
import gc
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from proxy.api.answer import Answer
from proxy.pipeline.running import Live
from proxy.request import ChatRequest
from proxy.settings import Settings
from proxy.testing import (
    Fault,
    ScriptedUpstream,
    begun,
    chunk,
    cut_after,
    error_in_stream,
    hang_after,
    hang_before,
    html,
    sse,
    status,
    text,
)
from proxy.wire import KEEP_ALIVE
from proxy.wire.formats import encoder_for
from proxy.wire.openai_fold import Fold
from tests.server import KEY, LIMIT, Server, chat, serving

pytestmark = pytest.mark.anyio

HEADERS = ("x-request-id", "x-weir-provider", "x-weir-attempts")


async def until(holds: Any) -> None:
    """Lets everything else run until `holds`; for what this very process is about to do."""
    async with asyncio.timeout(LIMIT):
        while not holds():
            await asyncio.sleep(0)


def counted(server: Server, provider_id: str = "main") -> tuple[int, int, int, dict[str, int]]:
    """Requests, successes, cancelled, failures by kind."""
    tally = server.weir.fleet.stats.meter(provider_id).tallies["total"]
    return tally.requests, tally.successes, tally.cancelled, tally.failures


async def test_a_token_is_passed_on_before_the_next_one_is_there(server: Server) -> None:
    more = asyncio.Event()
    script = [*begun("Hel"), more, *text("lo")[2:]]
    async with ScriptedUpstream(script) as upstream:
        await server.register(upstream)
        async with server.stream(chat()) as response:
            assert response.status == 200
            got = b""
            while b"Hel" not in got:
                got += await response.content.readany()
            more.set()
            got += await response.read()
        assert got.endswith(b"data: [DONE]\n\n")
        assert counted(server) == (1, 1, 0, {})


async def test_a_stream_has_its_headers(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        async with server.stream(chat(), x_request_id="mine-1") as response:
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert response.headers["x-accel-buffering"] == "no"
            assert response.headers["cache-control"] == "no-cache"
            assert [response.headers[name] for name in HEADERS] == ["mine-1", "main", "1"]


async def test_attempts_are_told(server: Server) -> None:
    async with ScriptedUpstream(status(503)) as bad, ScriptedUpstream(text("a")) as good:
        await server.register(bad, "bad", models=["m1"], retry={"max_attempts": 2, "initial": 0}, priority=0)
        await server.register(good, "good", models=["m1"])
        for stream in (False, True):
            got = await server.session.post(f"{server.url}/v1/chat/completions", json=chat(model="m1", stream=stream))
            assert [got.headers[name] for name in HEADERS[1:]] == ["good", "3"]


@pytest.mark.parametrize("stream", [True, False])
async def test_total_failure_is_a_status_and_says_what_each_provider_said(server: Server, stream: bool) -> None:
    async with ScriptedUpstream(status(500, f"boom {KEY}")) as one, ScriptedUpstream(status(429, "slow down")) as two:
        await server.register(one, "one", models=["m1"], priority=0)
        await server.register(two, "two", models=["m1"])
        got = await server.ask("POST", "/v1/chat/completions", chat(model="m1", stream=stream))
        assert got.status == 502
        assert "one: server 500 (boom [redacted])" in got.message
        assert "two: rate_limit 429 (slow down)" in got.message
        assert KEY not in got.message
        assert [got.headers[name] for name in HEADERS[1:]] == ["two", "2"]


async def test_a_rate_limit_says_when_to_come_back(server: Server) -> None:
    async with ScriptedUpstream(status(429, "slow down", retry_after="7")) as upstream:
        await server.register(upstream)
        got = await server.ask("POST", "/v1/chat/completions", chat(stream=True))
        assert (got.status, got.headers["retry-after"]) == (429, "7")
        async with server.openai() as client:
            with pytest.raises(openai.RateLimitError, match="rest"):
                await client.chat.completions.create(model="main", messages=[{"role": "user", "content": "hi"}])


async def test_the_status_line_waits_so_long_and_a_failure_then_goes_into_the_stream() -> None:
    fail = asyncio.Event()
    async with (
        serving(keep_alive=0.02, status_wait=0.05) as server,
        ScriptedUpstream([fail, *status(500, "boom")]) as it,
    ):
        await server.register(it)
        async with server.stream(chat()) as response:
            assert response.status == 200
            assert [response.headers[name] for name in HEADERS[1:]] == ["main", "1"]
            got = b""
            while got.count(KEEP_ALIVE) < 3:
                got += await response.content.readany()
            fail.set()
            *alive, last, _, rest = (got + await response.read()).split(b"\n")
        assert set(alive) == {b": keep-alive"}
        assert "main: server 500 (boom)" in json.loads(last.removeprefix(b"data: "))["error"]["message"]
        assert rest == b"", "after an error nothing follows, and no [DONE]"


async def test_a_whole_answer_waits_for_its_status_however_long_it_takes() -> None:
    fail = asyncio.Event()
    async with (
        serving(keep_alive=0.01, status_wait=0.01) as server,
        ScriptedUpstream([fail, *status(500, "boom")]) as it,
    ):
        await server.register(it)
        asking = asyncio.create_task(server.ask("POST", "/v1/chat/completions", chat()))
        await it.until(lambda upstream: len(upstream.requests) == 1)
        await asyncio.sleep(0.05)  # five times as long as a stream would have waited
        fail.set()
        assert (await asking).status == 502


async def test_an_answer_that_waits_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a silent whole answer nor one that nobody reads may make its watcher look at the clock all the time."""
    looks = 0
    wait = asyncio.timeout_at

    def counting(when: float | None) -> asyncio.Timeout:
        nonlocal looks
        looks += 1
        return wait(when)

    monkeypatch.setattr(asyncio, "timeout_at", counting)
    go = asyncio.Event()
    async with serving(keep_alive=0.01, status_wait=0.01) as server, ScriptedUpstream([go, *text("a")]) as upstream:
        await server.register(upstream)
        asking = asyncio.create_task(server.ask("POST", "/v1/chat/completions", chat()))
        await upstream.until(lambda it: len(it.requests) == 1)
        before = looks
        await asyncio.sleep(0.1)
        assert looks - before <= 2, f"{looks - before} looks at the clock in a tenth of a second"
        go.set()
        assert (await asking).status == 200


async def test_silence_is_filled_and_never_within_an_event(server: Server) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    payloads = [sse(chunk({"content": word})) for word in ("a", "b", "c")]
    script: list[Any] = [*begun("-")]
    for gate, payload in zip(gates, payloads, strict=True):
        script += [payload[:20], gate, payload[20:]]  # the provider itself pauses within its event
    async with ScriptedUpstream([*script, *text()[2:]]) as upstream:
        await server.register(upstream)
        async with server.stream(chat()) as response:
            got, gates_left = b"", list(gates)
            seen = 0
            while gates_left:
                got += await response.content.readany()
                if got.count(KEEP_ALIVE) > seen:
                    seen = got.count(KEEP_ALIVE)
                    gates_left.pop(0).set()
            got += await response.read()
    *frames, rest = got.replace(KEEP_ALIVE, b"").split(b"\n\n")
    assert rest == b""
    assert frames[-1] == b"data: [DONE]"
    for frame in frames[:-1]:
        assert json.loads(frame.removeprefix(b"data: ")), f"torn: {frame!r}"


async def test_openais_sdk_does_not_see_keep_alives(server: Server) -> None:
    go = asyncio.Event()
    async with ScriptedUpstream([*begun("Hel"), go, *text("lo")[2:]]) as upstream, server.openai() as client:
        await server.register(upstream)
        stream = await client.chat.completions.create(
            model="main", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        said = []
        async for part in stream:
            said.append(part.choices[0].delta.content)
            if said[-1] == "Hel":
                asyncio.get_running_loop().call_later(0.12, go.set)  # two keep-alives later
        assert said == ["", "Hel", "lo", None]


async def test_an_error_in_the_stream_raises_in_openais_sdk(server: Server) -> None:
    async with ScriptedUpstream(error_in_stream("overloaded", after=2)) as upstream, server.openai() as client:
        await server.register(upstream)
        stream = await client.chat.completions.create(
            model="main", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        said = []
        with pytest.raises(openai.APIError, match="main: overloaded"):
            async for part in stream:
                said.append(part.choices[0].delta.content)
        assert said == ["", "la ", "la "]
        assert counted(server) == (1, 0, 0, {"server": 1})


async def test_a_whole_answer_that_breaks_is_an_error(server: Server) -> None:
    async with ScriptedUpstream(error_in_stream("overloaded", after=2)) as upstream:
        await server.register(upstream)
        got = await server.ask("POST", "/v1/chat/completions", chat())
        assert (got.status, got.message) == (502, "main: overloaded")


GOES_AWAY = {
    "a stream, after a token": (True, hang_after(1)),
    "a stream, before the first token": (True, hang_before()),
    "a whole answer, after a token": (False, hang_after(1)),
    "a whole answer, before the first token": (False, hang_before()),
}


@pytest.mark.parametrize("case", GOES_AWAY)
async def test_a_client_that_goes_away_takes_the_upstream_call_with_it(case: str, server: Server) -> None:
    stream, script = GOES_AWAY[case]
    async with ScriptedUpstream(script) as upstream:
        await server.register(upstream)
        asking = asyncio.create_task(server.ask("POST", "/v1/chat/completions", chat(stream=stream)))
        await upstream.until(lambda it: len(it.requests) == 1)
        if "after a token" in case:
            await until(lambda: next(iter(server.weir.pipeline.live.values())).journey.first_token is not None)
        asking.cancel()
        began = time.monotonic()
        await upstream.disconnected()
        assert time.monotonic() - began < 1, f"{case}: the upstream call outlived its client"
        await until(lambda: counted(server)[0])
        assert counted(server) == (1, 0, 1, {}), f"{case}: a cancel was counted as something else"
        assert server.weir.router.get("main").meter.active == 0  # type: ignore[union-attr]
        assert not server.weir.pipeline.live


class Played(list[Any]):
    """A script that knows how much of itself has been played."""

    steps = 0

    def __iter__(self) -> Iterator[Any]:
        for self.steps, step in enumerate(super().__iter__(), 1):
            yield step


async def test_a_client_that_stops_reading_is_let_go_and_nobody_is_blamed() -> None:
    endless = Played([*begun(), *[sse(chunk({"content": "x" * 65536}))] * 1000, Fault.HANG])
    async with serving(stall=0.3, keep_alive=0.1) as server, ScriptedUpstream(endless) as upstream:
        await server.register(upstream)
        body = json.dumps(chat(stream=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)  # reads no more than 128 KB
        writer.write(head.encode() + body)
        await upstream.disconnected()
        await until(lambda: counted(server)[0])
        assert counted(server) == (1, 0, 1, {}), "a slow client is no failure of the provider"
        assert server.weir.router.get("main").circuit._failures == 0  # type: ignore[union-attr]
        assert not server.weir.pipeline.live
        assert endless.steps < 400, f"{endless.steps * 65536} bytes are waiting for a client that does not read"
        async with asyncio.timeout(LIMIT):
            left = await reader.read()
        writer.close()
        assert left.startswith(b"HTTP/1.1 200"), "what had been sent can still be read"
        assert not left.endswith(b"0\r\n\r\n"), "a stream that was given up looks complete"


def live(server: Server, request: ChatRequest) -> Live:
    return Live(server.weir.pipeline, request, server.weir.stream(request))


async def test_a_client_that_does_not_even_take_a_keep_alive_is_let_go(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream:
        await server.register(upstream)
        request = ChatRequest(chat(stream=True), "r1")
        running, limits = live(server, request), Settings(keep_alive=0.02, stall=0.05)
        answer = Answer(running, encoder_for("openai", request.heading()), limits)

        async def silent() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if message.get("body") == KEEP_ALIVE:
                await asyncio.Event().wait()

        async with asyncio.timeout(LIMIT):
            await answer({"type": "http"}, silent, send)
            await upstream.disconnected()
        assert counted(server) == (1, 0, 1, {})


async def test_cancelled_while_a_keep_alive_is_being_written_it_leaves_no_broken_task(server: Server) -> None:
    go, broken = asyncio.Event(), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
    async with ScriptedUpstream([*begun("a"), go, *text("b")[1:]]) as upstream:
        await server.register(upstream)
        request = ChatRequest(chat(stream=True), "r1")
        running, written = live(server, request), asyncio.Event()
        encoder = encoder_for("openai", request.heading())
        answer = Answer(running, encoder, Settings(keep_alive=0.02, stall=60))

        async def silent() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if message.get("body") == KEEP_ALIVE:
                written.set()
                await asyncio.Event().wait()

        writing = asyncio.create_task(answer({"type": "http"}, silent, send))
        async with asyncio.timeout(LIMIT):
            await written.wait()
            go.set()
            await until(lambda: answer._pulse is not None and answer._pulse._callbacks)  # somebody waits for it
            writing.cancel()
            await asyncio.wait([writing])
        for _ in range(5):
            await asyncio.sleep(0)
    gc.collect()
    asyncio.get_running_loop().set_exception_handler(None)
    assert not broken


async def test_a_slow_client_that_still_reads_is_served_whole() -> None:
    piece = sse(chunk({"content": "x" * 65536}))
    script = [*begun(), *[piece] * 60, *text()[2:]]
    async with serving(stall=0.3, keep_alive=0.02) as server, ScriptedUpstream(script) as upstream:
        await server.register(upstream)
        async with server.stream(chat()) as response:
            got = 0
            while data := await response.content.readany():
                got += len(data)
                await asyncio.sleep(0.005)
        assert got > 60 * 65536
        assert counted(server) == (1, 1, 0, {})


async def test_a_bug_of_ours_is_told_without_its_details(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedUpstream(text("a", "b")) as upstream:
        await server.register(upstream)

        def broken(*_: Any) -> bytes:
            raise KeyError("a secret of the house")

        monkeypatch.setattr("proxy.wire.openai.ChunkEncoder.encode", broken)
        monkeypatch.setattr("proxy.wire.openai_fold.Fold.add", broken)
        for stream in (True, False):
            got = await server.ask("POST", "/v1/chat/completions", chat(stream=stream))
            assert (got.status, "secret" in got.message) == (500, False)
    assert [record.levelno for record in caplog.records if "failed" in record.message] == [logging.ERROR] * 2


async def test_a_stream_that_is_stopped_says_so(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream:
        await server.register(upstream)
        async with server.stream(chat()) as response:
            while b"la " not in await response.content.readany():
                pass
            server.weir.stop_streams("Weir is shutting down")
            frames = [frame for frame in (await response.read()).split(b"\n") if frame.startswith(b"data")]
        assert "Weir is shutting down" in json.loads(frames[-1][6:])["error"]["message"]


async def test_an_answer_of_nothing_but_headers_is_not_sent(server: Server) -> None:
    """HTML with a 200, a cut stream: before the first event all of them are a status of ours."""
    async with ScriptedUpstream(html(), begun()) as upstream:
        for _ in range(2):
            await server.register(upstream)
            assert (await server.ask("POST", "/v1/chat/completions", chat(stream=True))).status == 502


ASKED: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, Any]]] = {
    "in the body": ({"weir": {"durable": True}}, {}, {}),
    "in a header": ({}, {"x_weir_durable": "true"}, {}),
    "by the provider": ({}, {}, {"durable": True}),
}


@pytest.mark.parametrize("case", ASKED)
async def test_an_answer_is_durable_where_somebody_says_so(server: Server, case: str) -> None:
    fields, headers, config = ASKED[case]
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream, **config)
        got = await server.ask("POST", "/v1/chat/completions", chat(stream=True, **fields), **headers)
        assert got.body.startswith(b"id: 1-1-"), case
        replay = await server.ask("GET", f"/v1/streams/{got.headers['x-weir-stream-id']}")
        assert replay.body == got.body, case


async def test_who_wants_no_durable_answer_of_a_durable_provider_gets_none(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream, durable=True)
        path = "/v1/chat/completions"
        for got in (
            await server.ask("POST", path, chat(stream=True, weir={"durable": False})),
            await server.ask("POST", path, chat(stream=True), x_weir_durable="false"),
        ):
            assert got.body.startswith(b"data: ")


DURABLE: dict[str, Any] = {"weir": {"durable": True}}


@pytest.mark.parametrize("stream", [True, False])
async def test_total_failure_of_a_durable_answer_has_its_status_too(server: Server, stream: bool) -> None:
    async with ScriptedUpstream(status(500, f"boom {KEY}")) as one, ScriptedUpstream(status(429, "slow down")) as two:
        await server.register(one, "one", models=["m1"], priority=0)
        await server.register(two, "two", models=["m1"])
        got = await server.ask("POST", "/v1/chat/completions", chat(model="m1", stream=stream, **DURABLE))
        assert got.status == 502
        assert "one: server 500 (boom [redacted])" in got.message
        assert [got.headers[name] for name in HEADERS[1:]] == ["two", "2"]
        replay = await server.ask("GET", f"/v1/streams/{got.headers['x-weir-stream-id']}")
        assert (replay.status, replay.message) == (502, got.message), "read later, it is told otherwise"


async def test_a_rate_limit_of_a_durable_answer_says_when_to_come_back(server: Server) -> None:
    async with ScriptedUpstream(status(429, "slow down", retry_after="7")) as upstream:
        await server.register(upstream)
        got = await server.ask("POST", "/v1/chat/completions", chat(stream=True, **DURABLE))
        assert (got.status, got.headers["retry-after"]) == (429, "7")


async def test_a_whole_answer_may_be_durable(server: Server) -> None:
    async with ScriptedUpstream(text("Hel", "lo")) as upstream:
        await server.register(upstream)
        plain, durable = [
            await server.ask("POST", "/v1/chat/completions", chat(**fields), x_request_id="r1")
            for fields in ({}, DURABLE)
        ]
        assert durable.body == plain.body
        assert durable.headers["content-type"] == "application/json"
        replay = await server.ask("GET", f"/v1/streams/{durable.headers['x-weir-stream-id']}")
        assert replay.body.endswith(b"data: [DONE]\n\n")


async def test_a_whole_answer_that_is_begun_anew_has_nothing_of_the_old_one(server: Server) -> None:
    async with ScriptedUpstream(cut_after(2), text("new")) as upstream:
        await server.register(upstream)
        got = await server.ask("POST", "/v1/chat/completions", chat(weir={"recovery": "restart"}))
        assert got.body["choices"][0]["message"]["content"] == "new"
        assert got.body["weir"]["how"] == "restarted"


async def test_an_answer_that_is_gone_on_with_is_one_answer(server: Server) -> None:
    """Also where it is not durable; its first provider takes no prefill, so the second is asked."""
    async with ScriptedUpstream(cut_after(2)) as one, ScriptedUpstream(text("end")) as two, server.openai() as client:
        await server.register(one, "one", models=["m1"], priority=0)
        await server.register(two, "two", models=["m1"], prefill=True)
        said = await client.chat.completions.create(
            model="m1",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            extra_body={"weir": {"recovery": "continue"}},
        )
        assert "".join([part.choices[0].delta.content or "" async for part in said]) == "la la end"
        assert two.requests[0].body["messages"][-1] == {"role": "assistant", "content": "la la"}


async def test_a_client_that_goes_away_leaves_a_durable_answer_running(server: Server) -> None:
    more = asyncio.Event()
    async with ScriptedUpstream([*begun("Hel"), more, *text("lo")[2:]]) as upstream:
        await server.register(upstream)
        async with server.stream(chat(**DURABLE)) as response:
            stream_id = response.headers["x-weir-stream-id"]
        written = server.weir.durable._produced._written[stream_id]
        await until(lambda: not written.feed.readers)
        more.set()
        await until(lambda: written.feed.ended)
        got = await server.ask("GET", f"/v1/streams/{stream_id}")
        assert got.body.endswith(b"data: [DONE]\n\n")
        assert counted(server) == (1, 1, 0, {}), "it was answered in full"


async def test_the_silence_of_a_durable_answer_is_filled_too(server: Server) -> None:
    more = asyncio.Event()
    async with ScriptedUpstream([*begun("Hel"), more, *text("lo")[2:]]) as upstream:
        await server.register(upstream)
        async with server.stream(chat(**DURABLE)) as response:
            got = b""
            while KEEP_ALIVE not in got:
                got += await response.content.readany()
            more.set()
            got += await response.read()
    assert b"id:" not in KEEP_ALIVE
    assert got.endswith(b"data: [DONE]\n\n")


async def test_openais_sdk_passes_over_the_keep_alives_of_a_durable_answer(server: Server) -> None:
    more = asyncio.Event()
    async with ScriptedUpstream([*begun("Hel"), more, *text("lo")[2:]]) as upstream, server.openai() as client:
        await server.register(upstream)
        stream = await client.chat.completions.create(**chat(), stream=True, extra_body=DURABLE)
        asyncio.get_running_loop().call_later(0.2, more.set)
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(said) == "Hello"


async def test_an_answer_that_is_not_streamed_reads_few_of_its_chunks(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    add = Fold._add

    def noted(self: Fold, it: dict[str, Any]) -> None:
        read.append(it)
        add(self, it)

    monkeypatch.setattr(Fold, "_add", noted)
    async with ScriptedUpstream(text(*map(str, range(50)))) as upstream:
        await server.register(upstream)
        got = await server.ask("POST", "/v1/chat/completions", chat(stream=False))
    assert got.body["choices"][0]["message"]["content"] == "".join(map(str, range(50)))
    assert len(read) < 10
