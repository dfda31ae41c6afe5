"""WebSocket, row by row: the guide's messages on a real socket."""

import asyncio
import json

import pytest
import websockets
from fastapi import FastAPI

from proxy import Mount
from proxy.testing import ScriptedUpstream, begun, text
from tests.hosting import hosting
from tests.server import LIMIT, serving
from tests.socket_client import connected, events, text_of

pytestmark = pytest.mark.anyio

MESSAGES = [{"role": "user", "content": "hi"}]


async def test_g19_connect() -> None:
    """`ws://host/api/streaming/ws/{user_id}?session_id=...`"""
    async with serving() as server:
        address = f"ws://127.0.0.1:{server.port}/api/streaming/ws/ann?session_id=s1"
        async with websockets.connect(address, proxy=None, open_timeout=LIMIT) as socket:
            first = json.loads(await socket.recv())
    assert first["message_type"] == "connected"
    assert (first["data"]["user_id"], first["data"]["session_id"]) == ("ann", "s1")


async def test_g20_ask() -> None:
    """`{"message_type":"chat_request","data":{"messages":[...],"generator_mode":"standard"}}`"""
    async with ScriptedUpstream(text("hello")) as upstream, serving() as server:
        await server.register(upstream)
        async with connected(server.url) as client:
            asked = {"message_type": "chat_request", "data": {"messages": MESSAGES, "generator_mode": "standard"}}
            await client.raw(json.dumps(asked))
            assert text_of(await client.to_end()) == "hello"
    assert upstream.requests[0].body["messages"] == MESSAGES


async def test_g21_receive() -> None:
    """`{"message_type":"stream_event","data":{"event_type":"text-delta","event_data":{"content":"..."}}}`, later
    `event_type` `finish`."""
    async with ScriptedUpstream(text("hel", "lo")) as upstream, serving() as server:
        await server.register(upstream)
        async with connected(server.url) as client:
            await client.say("chat_request", messages=MESSAGES)
            frames = await client.to_end()
    said = [frame["data"] for frame in frames if frame["data"]["event_type"] == "text-delta"]
    assert {frame["message_type"] for frame in frames} == {"stream_event"}
    assert [data["event_data"]["content"] for data in said] == ["hel", "lo"]
    assert frames[-1]["data"]["event_type"] == "finish"


async def test_g22_talk_back_while_it_streams() -> None:
    """ "Real-time two-way communication and feedback": cancel, pause, resume, feedback on what was said, a new
    instruction."""
    more, never = asyncio.Event(), asyncio.Event()
    scripts = [[*begun("one "), more, *text("two")[2:]], [*begun("In Engl"), never], text("En français"), begun("x")]
    async with ScriptedUpstream(*scripts[:3], [*scripts[3], never]) as upstream, serving() as server:
        await server.register(upstream)
        async with connected(server.url) as client:
            await client.ask("first")
            await client.until("text-delta")
            await client.say("pause", "first")
            assert (await client.until("control_result"))["data"]["action"] == "pause"
            more.set()
            await client.say("ping")
            assert (await client.hear())["message_type"] == "pong", "a paused stream goes on"
            await client.say("resume", "first")
            assert text_of(await client.to_end("first")) == "two"
            await client.say("feedback", "first", rating="up", remark="nice")
            assert (await client.until("control_result"))["data"]["action"] == "feedback"

            await client.ask("second")
            await client.until("text-delta")
            await client.say("steer", "second", instruction="In French, please.")
            frames = await client.to_end("second")
            assert (events(frames).count("data-steer"), text_of(frames)) == (1, "En français")
            assert upstream.requests[2].body["messages"][-1]["content"] == "In French, please."

            await client.ask("third")
            await client.until("text-delta")
            await client.say("cancel", "third")
            assert events(await client.to_end("third"))[-1] == "abort"
            await upstream.disconnected(2)


async def test_g23_connections_are_counted_and_addressable() -> None:
    """`add_connection(websocket, user_id, session_id)`, `send_message`, `get_statistics()`."""

    class TheirSocket:
        """A socket of the host's own framework."""

        def __init__(self) -> None:
            self.got: list[str] = []

        async def send_text(self, data: str) -> None:
            self.got.append(data)

    weir = Mount()
    app = FastAPI()
    app.include_router(weir.router)
    async with hosting(app) as host, connected(host.url, "ann", "s1") as ann, connected(host.url, "bob", "s2") as bob:
        sockets = weir.weir.sockets
        theirs = TheirSocket()
        connection = sockets.add_connection(theirs, "ann", "s3")
        statistics = sockets.get_statistics()
        assert (statistics["connections"], statistics["users"]) == (3, 2)
        assert {(it["user_id"], it["session_id"]) for it in statistics["sockets"]} == {
            ("ann", "s1"),
            ("bob", "s2"),
            ("ann", "s3"),
        }
        assert await sockets.send_message("ann", {"data": "to all of hers"}) == 2
        assert (await ann.hear())["data"] == "to all of hers"
        assert json.loads(theirs.got[0])["data"] == "to all of hers"
        assert await sockets.send_message(bob.first["data"]["connection_id"], {"data": "to one"}) == 1
        assert (await bob.hear())["data"] == "to one"
        sockets.remove_connection(connection)
        assert (await weir.weir.get_statistics())["websocket"]["connections"] == 2
