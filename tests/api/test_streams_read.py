"""/v1/streams/{id}: a durable stream read once more, from wherever one left off, in any format."""

import asyncio
import json
from typing import Any

import aiohttp
import openai
import pytest

from proxy.testing import ScriptedUpstream, begun, chunk, hang_after, sse, text
from tests.process import until
from tests.server import Answered, Server, chat, serving

pytestmark = pytest.mark.anyio

FORMATS = ["openai", "sse", "ui"]
CALL = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RICH = [
    *begun("Hel", "lo"),
    sse(chunk({"reasoning_content": "hm"}, x_new={"a": [1, None]})),
    sse(chunk({"content": "!", "x": 1, "tool_calls": [CALL]}, system_fingerprint="f1")),
    *text(finish="tool_calls")[2:],
]


def durable(**fields: Any) -> dict[str, Any]:
    return chat(stream=True, stream_options={"include_usage": True}, weir={"durable": True}, **fields)


async def begin(server: Server, **fields: Any) -> Answered:
    return await server.ask("POST", "/v1/chat/completions", durable(**fields))


async def read(server: Server, stream_id: str, format: str = "openai", after: str = "", **headers: str) -> Answered:
    return await server.ask("GET", f"/v1/streams/{stream_id}?format={format}&after={after}", **headers)


def blocks(got: Answered) -> list[bytes]:
    assert got.status == 200, got.body
    assert isinstance(got.body, bytes)
    *found, rest = got.body.split(b"\n\n")
    assert not rest, "not whole events"
    return [block for block in found if not block.startswith(b":")]


async def first_word(response: aiohttp.ClientResponse) -> bytes:
    """All that came of a stream by the time at which it has said something."""
    got = b""
    while b"la" not in got:
        got += await response.content.readany()
    return got


def position(block: bytes) -> str:
    line = block.split(b"\n")[0]
    assert line.startswith(b"id: "), f"no position: {block!r}"
    return line[4:].decode()


async def test_what_is_read_later_is_what_was_read_live(server: Server) -> None:
    async with ScriptedUpstream(RICH) as upstream:
        await server.register(upstream)
        live = await begin(server)
        replayed = await read(server, live.headers["x-weir-stream-id"])
        assert replayed.body == live.body
        assert replayed.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert replayed.headers["x-weir-stream-id"] == live.headers["x-weir-stream-id"]
        assert replayed.headers["x-weir-provider"] == "main"
        assert b'"x_new":{"a":[1,null]}' in live.body, "an unknown field was lost"
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("format", FORMATS)
async def test_every_cut_is_resumed_exactly_in_every_format(format: str, server: Server) -> None:
    async with ScriptedUpstream(RICH) as upstream:
        await server.register(upstream)
        stream_id = (await begin(server)).headers["x-weir-stream-id"]
        whole = blocks(await read(server, stream_id, format))
        assert len(whole) >= 7
        for count, block in enumerate(whole, start=1):
            rest = blocks(await read(server, stream_id, format, last_event_id=position(block)))
            assert rest == whole[count:], f"resumed after block {count} of {len(whole)}"
        assert blocks(await read(server, stream_id, format, after="0")) == whole


async def test_the_header_counts_more_than_the_query(server: Server) -> None:
    """EventSource comes back with the address that it began with."""
    async with ScriptedUpstream(RICH) as upstream:
        await server.register(upstream)
        stream_id = (await begin(server)).headers["x-weir-stream-id"]
        whole = blocks(await read(server, stream_id))
        second, third = map(position, whole[1:3])
        assert blocks(await read(server, stream_id, after=second, last_event_id=third)) == whole[3:]


async def test_it_is_read_on_while_it_runs(server: Server) -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream([*begun("Hel"), gate, *text("lo")[2:]]) as upstream:
        await server.register(upstream)
        async with server.stream(durable()) as response:
            stream_id, got = response.headers["x-weir-stream-id"], b""
            while b"Hel" not in got:
                got += await response.content.readany()
        last = position(got.split(b"\n\n")[-2])
        reading = [asyncio.create_task(read(server, stream_id, format, last)) for format in FORMATS]
        feed = server.weir.durable._produced._written[stream_id].feed
        await until(lambda: feed.readers == 3, "three readers")
        gate.set()
        for got_now in await asyncio.gather(*reading):
            assert b"lo" in got_now.body
            assert b"Hel" not in got_now.body
        assert len(upstream.requests) == 1
        assert not upstream.disconnects, "the provider lost its reader with the client"


@pytest.mark.parametrize(
    ("after", "status", "code"),
    [
        ("nonsense", 400, "invalid_position"),
        ("1-1", 400, "invalid_position"),
        ("-1", 400, "invalid_position"),
        ("1-99-{nonce}", 409, "log_regressed"),
        ("2-1-{nonce}", 409, "log_regressed"),
        ("1-1-00000000", 409, "log_regressed"),
    ],
)
async def test_a_position_that_is_none_of_its_own_is_told(server: Server, after: str, status: int, code: str) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        live = await begin(server)
        nonce = position(blocks(live)[0])[-8:]
        got = await read(server, live.headers["x-weir-stream-id"], after=after.format(nonce=nonce))
        assert (got.status, got.body["error"]["code"]) == (status, code)
        assert got.message


async def test_a_position_to_come_is_told_while_it_runs(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream:
        await server.register(upstream)
        async with server.stream(durable()) as response:
            got = await first_word(response)
            nonce = position(got.split(b"\n\n")[0])[-8:]
            later = await read(server, response.headers["x-weir-stream-id"], after=f"1-50-{nonce}")
        assert later.status == 409


@pytest.mark.parametrize("stream_id", ["nothing", "a-b", "%00", "x" * 300])
async def test_a_stream_that_is_not_there(server: Server, stream_id: str) -> None:
    for method, path in (("GET", ""), ("GET", "/status"), ("DELETE", "")):
        got = await server.ask(method, f"/v1/streams/{stream_id}{path}")
        assert (got.status, got.body["error"]["code"]) == (404, "stream_not_found"), (method, path)


async def test_a_stream_that_is_not_durable_cannot_be_come_back_to(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        plain = await server.ask("POST", "/v1/chat/completions", chat(stream=True))
        assert b"id:" not in plain.body
        assert (await read(server, plain.headers["x-weir-stream-id"])).status == 404


async def test_after_its_time_it_is_gone(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        stream_id = (await begin(server)).headers["x-weir-stream-id"]
        await server.weir.store.client.delete(server.weir.durable.logs.log(stream_id))
        for path in (f"/v1/streams/{stream_id}", f"/v1/streams/{stream_id}/status"):
            got = await server.ask("GET", path)
            assert (got.status, got.body["error"]["code"]) == (410, "stream_gone")


async def test_a_format_that_there_is_not(server: Server) -> None:
    got = await read(server, "x", "xml")
    assert (got.status, got.body["error"]["param"]) == (400, "format")


async def test_its_status_while_it_runs_and_after(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream:
        await server.register(upstream)
        async with server.stream(durable()) as response:
            got = await first_word(response)
            stream_id = response.headers["x-weir-stream-id"]
            last = position(got.split(b"\n\n")[-2])
            status = (await server.ask("GET", f"/v1/streams/{stream_id}/status")).body
            told = (status["id"], status["model"], status["state"], status["end"], status["position"], status["seq"])
            assert told == (stream_id, "main", "running", None, last, 2)
            assert (await server.ask("DELETE", f"/v1/streams/{stream_id}")).body["action"] == "cancel"
            assert b"cancelled by its reader" in await response.read()
        status = (await server.ask("GET", f"/v1/streams/{stream_id}/status")).body
        assert (status["state"], status["end"]) == ("ended", "abort")


async def test_it_is_ended_by_who_says_so_alone(server: Server) -> None:
    """A client that goes away leaves it running; one that deletes it ends its provider's call."""
    async with ScriptedUpstream(hang_after(1)) as upstream:
        await server.register(upstream)
        async with server.stream(durable()) as response:
            stream_id = response.headers["x-weir-stream-id"]
        await until(
            lambda: not server.weir.durable._produced._written[stream_id].feed.readers,
            "the client's leaving to be seen",
        )
        assert not upstream.disconnects
        assert (await server.ask("DELETE", f"/v1/streams/{stream_id}")).status == 200
        await upstream.disconnected()
        again = await server.ask("DELETE", f"/v1/streams/{stream_id}")
        assert (again.status, again.body["error"]["code"]) == (409, "ended")
        assert b"cancelled by its reader" in (await read(server, stream_id)).body


async def test_nobody_reads_it_for_too_long_and_it_is_cancelled(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream:
        await server.register(upstream)
        async with server.stream(chat(weir={"durable": True, "detached": 0.1})) as response:
            stream_id = response.headers["x-weir-stream-id"]
        await upstream.disconnected()
        assert b"nobody has read it for 0.1 s" in (await read(server, stream_id)).body


async def test_openais_sdk_reads_it_with_what_it_does_not_know(server: Server) -> None:
    """Its ids, and the markers: a chunk with an empty delta, and one field more."""
    cut = begun("la ")
    async with ScriptedUpstream(cut, text("new")) as upstream, server.openai() as client:
        await server.register(upstream)
        stream = await client.chat.completions.create(
            model="main",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            extra_body={"weir": {"durable": True, "recovery": "restart"}},
        )
        chunks = [part async for part in stream]
    assert [part.choices[0].delta.content for part in chunks] == ["", "la ", None, "new", None]
    (marker,) = [part for part in chunks if part.model_extra and "weir" in part.model_extra]
    assert marker.model_extra is not None
    told = marker.model_extra["weir"]
    assert (told["type"], told["how"], told["after"]) == ("data-recovery", "restarted", 0)


async def test_openais_sdk_raises_what_broke_it(server: Server) -> None:
    async with ScriptedUpstream(begun("la ")) as upstream, server.openai() as client:
        await server.register(upstream)
        stream = await client.chat.completions.create(
            model="main",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            extra_headers={"x-weir-durable": "true"},
        )
        said = []
        with pytest.raises(openai.APIError, match="finish_reason"):
            async for part in stream:
                said.append((part.choices[0].delta.content, (part.model_extra or {}).get("weir", {}).get("how")))
    assert said == [("", None), ("la ", None), (None, "failed")]


async def test_a_mode_shapes_what_is_kept(server: Server) -> None:
    async with ScriptedUpstream(text("a ", "b ", "c ")) as upstream:
        await server.register(upstream)
        body = chat(stream=True, weir={"durable": True, "mode": "buffered"})
        live = await server.ask("POST", "/v1/chat/completions", body)
        replayed = blocks(await read(server, live.headers["x-weir-stream-id"], "sse"))
    said = [json.loads(block.split(b"data: ")[1]) for block in replayed]
    assert [event["content"] for event in said if event["type"] == "text-delta"] == ["a b c "]


async def test_several_providers_in_one_stream(server: Server) -> None:
    async with ScriptedUpstream(text("A")) as one, ScriptedUpstream(begun("la ")) as two:
        await server.register(one, "one")
        await server.register(two, "two")
        body = chat(model="one", stream=True, weir={"durable": True, "providers": ["one", "two"]})
        live = await server.ask("POST", "/v1/chat/completions", body)
        stream_id = live.headers["x-weir-stream-id"]
        assert (await read(server, stream_id)).body == live.body
        told = (await read(server, stream_id, "sse")).body
        assert b"data-recovery" not in told, "a source that broke is told by its own end"
        assert told.count(b'"type":"data-source-end"') == 2
        for format in FORMATS:
            whole = blocks(await read(server, stream_id, format))
            middle = len(whole) // 2
            assert blocks(await read(server, stream_id, format, position(whole[middle]))) == whole[middle + 1 :]


async def test_a_stream_at_its_cap_ends_marked() -> None:
    long = sse(chunk({"content": "x" * 30_000}))
    async with serving(stream_cap=64 * 1024) as server, ScriptedUpstream([*begun(), *[long] * 20]) as upstream:
        await server.register(upstream)
        got = await begin(server)
        last = json.loads(blocks(got)[-1].split(b"data: ")[1])
        assert last["error"]["code"] == "stream_too_long"
        assert (await read(server, got.headers["x-weir-stream-id"])).body == got.body


async def test_without_redis_it_is_not_begun_and_others_do_not_notice(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        await server.register(upstream)
        server.weir.store.away = True
        got = await begin(server)
        assert (got.status, got.body["error"]["code"]) == (503, "store_unavailable")
        assert not upstream.requests
        assert (await server.ask("POST", "/v1/chat/completions", chat(stream=True))).status == 200
