"""What happens on a WebSocket: several chats at once, each with one end, and a client that talks back."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from proxy.api.socket import Socket
from proxy.events import Event
from proxy.testing import (
    Script,
    ScriptedAdapter,
    ScriptedUpstream,
    begun,
    chunk,
    cut_after,
    error_in_stream,
    hang_after,
    says,
    sse,
    text,
)
from proxy.wire.frames import LONGEST_NAME
from tests.process import until
from tests.server import Server, serving
from tests.socket_client import connected, events, text_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


async def test_one_chat_from_its_start_to_its_finish(server: Server) -> None:
    async with ScriptedUpstream(text("Hello ", "world")) as upstream, connected(server.url) as client:
        await server.register(upstream)
        assert client.first["message_type"] == "connected"
        await client.ask(generator_mode="standard")
        frames = await client.to_end()
    assert events(frames) == ["start", "text-delta", "text-delta", "finish-step", "data-usage", "finish"]
    assert text_of(frames) == "Hello world"
    assert len({frame["request_id"] for frame in frames}) == 1, "every frame carries the name that the server made"
    assert [frame["data"]["event_data"]["seq"] for frame in frames] == [1, 2, 3, 4, 5, 6]
    (asked,) = upstream.requests
    assert asked.body["messages"] == [{"role": "user", "content": "hi"}]


async def test_several_chats_at_once_each_under_its_name(server: Server) -> None:
    gate = asyncio.Event()
    slow = [*begun("slow "), gate, sse(chunk({"content": "end"})), sse(chunk(finish="stop")), sse("[DONE]")]
    async with ScriptedUpstream(slow, text("quick")) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("one")
        await client.until("text-delta")
        await client.ask("two")
        frames = await client.to_end("two")
        assert text_of(frames, "two") == "quick", "the second does not wait for the first"
        gate.set()
        frames = await client.to_end("one")
        assert text_of(frames, "one") == "end"


async def test_a_name_can_be_used_again_once_its_chat_has_ended(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream, connected(server.url) as client:
        await server.register(upstream)
        for _ in range(3):
            await client.ask("r")
            assert events(await client.to_end("r"))[-1] == "finish"


async def test_a_name_that_is_taken_disturbs_nobody(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("r")
        await client.until("text-delta")
        await client.ask("r")
        error = await client.until("error")
        assert (error["request_id"], error["data"]["code"]) == ("r", "request_id_taken")
        await client.say("cancel", "r")
        assert events(await client.to_end("r")) == ["abort"]
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("script", "end", "code"),
    [
        (text("a"), "finish", None),
        (error_in_stream("overloaded", after=1), "error", "provider_error"),
        (cut_after(1), "error", "provider_error"),
        (error_in_stream("overloaded"), "error", "all_providers_failed"),
    ],
    ids=["complete", "error after text", "cut", "error before text"],
)
async def test_a_chat_ends_once(server: Server, script: Script, end: str, code: str | None) -> None:
    async with ScriptedUpstream(script) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("r")
        frames = await client.to_end("r")
        await client.say("ping", "p")
        frames.append(await client.hear())
    assert frames.pop() == {"message_type": "pong", "request_id": "p", "data": {}}, "after its end nothing comes"
    assert events(frames)[-1] == end
    assert sum(kind in ("finish", "error", "abort") for kind in events(frames)) == 1
    assert frames[-1]["data"]["event_data"].get("code") == code


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "messages: "),
        ({"messages": []}, "messages: "),
        ({"messages": [{"role": "user", "content": "x"}], "generator_mode": "nonsense"}, "generator_mode"),
        ({"messages": [{"role": "user", "content": "x"}], "provider_id": "nobody"}, "nobody"),
        ({"messages": [{"role": "user", "content": "x"}], "session_id": "no good"}, "session_id: "),
    ],
    ids=["nothing", "no messages", "mode", "provider", "session"],
)
async def test_a_chat_that_cannot_begin_ends_with_an_error(server: Server, data: dict[str, Any], said: str) -> None:
    async with ScriptedUpstream(text("a")) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.say("chat_request", "r", **data)
        (frame,) = await client.to_end("r")
        assert events([frame], "r") == ["error"]
        assert said in frame["data"]["event_data"]["error"]
        await client.ask("r")
        assert events(await client.to_end("r"))[-1] == "finish", "the socket stays open"


async def test_what_no_frame_can_hold_ends_its_chat(server: Server) -> None:
    """Such as the name of a file that one of an agent's tools has found."""

    class Odd(ScriptedAdapter):
        scripts = (says("a", "caf\udce9"), says("b"))

    server.weir.pipeline.registry.add_adapter("odd", Odd)
    await server.register("http://127.0.0.1:9/v1", provider_type="odd")
    async with connected(server.url) as client:
        await client.ask("r")
        frames = await client.to_end("r")
        assert (text_of(frames), events(frames)[-1]) == ("a", "error")
        assert frames[-1]["data"]["event_data"]["code"] == "internal_error"
        await client.ask("r")
        assert events(await client.to_end("r"))[-1] == "finish", "its name can be used again"
    kept = (await server.ask("GET", "/api/streaming/sessions/s1?user_id=ann")).body["turns"]
    assert [turn["state"] for turn in kept] == ["broken", "finished"]


@pytest.mark.parametrize("said", [{}, {"user_id": "bob"}])
async def test_an_agent_is_told_whose_socket_it_is(server: Server, said: dict[str, str]) -> None:
    """As over HTTP it is told the `user_id`; the session is that user's too, whatever a message says."""
    asked: list[Any] = []

    class Agent(ScriptedAdapter):
        features = frozenset({"streaming", "user_id"})

        async def stream_chat(self, /, messages: Any, tools: Any = None, **kwargs: Any) -> AsyncGenerator[Event, None]:
            asked.append(kwargs.get("user"))
            for event in says("ok"):
                yield event

    server.weir.pipeline.registry.add_adapter("agent", Agent)
    await server.register("http://127.0.0.1:9/v1", provider_type="agent")
    async with connected(server.url, user="ann") as client:
        await client.ask("r", **said)
        await client.to_end("r")
    assert asked == ["ann"]


@pytest.mark.parametrize("control", ["cancel", "pause", "resume"])
async def test_what_is_said_to_a_chat_that_never_began_comes_too_late(server: Server, control: str) -> None:
    async with ScriptedUpstream(text("a")) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("r", generator_mode="nonsense")
        await client.to_end("r")
        await client.say(control, "r")
        assert (await client.until("error"))["data"]["code"] == "ended"


async def test_who_asks_for_a_format_gets_frames(server: Server) -> None:
    """The guide's clients name WebSocket as the format; here it can be no other."""
    async with ScriptedUpstream(text("a")) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask(stream_format="websocket")
        assert events(await client.to_end())[-1] == "finish"


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ("{", "invalid_json", None),
        ("[]", "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        ('{"message_type":"hello"}', "invalid_request", "message_type"),
        ('{"message_type":"ping","request_id":"' + "x" * (LONGEST_NAME + 1) + '"}', "invalid_request", "request_id"),
        ('{"message_type":"cancel"}', "which_request_id", "request_id"),
        ('{"message_type":"cancel","request_id":"x"}', "unknown_request_id", "request_id"),
    ],
)
async def test_bad_input_is_told_and_the_socket_stays_open(
    server: Server, message: str | bytes, code: str, param: str | None
) -> None:
    async with connected(server.url) as client:
        await client.raw(message)
        error = await client.hear()
        assert (error["message_type"], error["data"]["code"]) == ("error", code)
        assert error["data"].get("param") == param
        await client.say("ping")
        assert (await client.hear())["message_type"] == "pong"


async def test_at_most_sixteen_chats_at_once(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream, connected(server.url) as client:
        await server.register(upstream)
        for number in range(17):
            await client.ask(f"r{number}")
        end = await client.until("error")
        assert (end["request_id"], end["data"]["event_data"]["code"]) == ("r16", "too_many_chats")
        await client.say("cancel", "r3")
        await client.until("abort")
        await client.ask("another")
        while (await client.until("text-delta"))["request_id"] != "another":
            pass


async def test_cancel_ends_the_chat_and_its_upstream(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("r")
        seq = (await client.until("text-delta"))["data"]["event_data"]["seq"]
        await client.say("cancel", "r", reason="enough")
        end = await client.until("abort")
        assert end["data"]["event_data"]["reason"] == "enough"
        result = await client.until("control_result")
        assert (result["request_id"], result["data"]) == ("r", {"action": "cancel", "position": seq + 1})
        await upstream.disconnected()
        await client.say("cancel", "r")
        assert (await client.until("error"))["data"] == {
            "message": f"the stream has ended, at position {seq + 1}",
            "code": "ended",
            "about": "cancel",
        }


async def test_a_chat_can_be_cancelled_before_it_has_begun(server: Server) -> None:
    hang: Script = [asyncio.Event()]
    async with ScriptedUpstream(hang) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("r")
        await upstream.until(lambda it: len(it.requests) == 1)
        await client.say("cancel", "r")
        assert events(await client.to_end("r")) == ["abort"]
        await upstream.disconnected()


async def test_pause_holds_everything_back_and_resume_lets_it_go(server: Server) -> None:
    gate = asyncio.Event()
    rest = [sse(chunk({"content": "b"})), sse(chunk(finish="stop")), sse("[DONE]")]
    async with ScriptedUpstream([*begun("a"), gate, *rest]) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("r")
        await client.until("text-delta")
        await client.say("pause", "r")
        result = await client.hear()
        assert result["data"] == {"action": "pause", "position": 2}
        gate.set()
        await client.say("ping")
        assert (await client.hear())["message_type"] == "pong", "of a paused chat nothing comes, the socket goes on"
        await client.say("resume", "r")
        assert (await client.hear())["data"] == {"action": "resume", "position": 2}
        assert text_of(await client.to_end("r")) == "b"


async def test_a_pause_ends_by_itself_and_is_not_held_against_the_provider(server: Server) -> None:
    gate = asyncio.Event()
    rest = [sse(chunk({"content": "b"})), sse(chunk(finish="stop")), sse("[DONE]")]
    async with ScriptedUpstream([*begun("a"), gate, *rest]) as upstream, connected(server.url) as client:
        await server.register(upstream, timeouts={"between_tokens": 0.1, "first_token": 0.1})
        await client.ask("r")
        await client.until("text-delta")
        await client.say("pause", "r", seconds=0.3)
        await client.until("control_result")
        gate.set()
        frames = await client.to_end("r")
        assert (text_of(frames), events(frames)[-1]) == ("b", "finish")


async def test_steering_goes_on_as_the_reader_wishes(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1), text("brief")) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("r")
        await client.until("text-delta")
        await client.say("steer", "r", instruction="shorter")
        frames = await client.to_end("r")
        assert "data-steer" in events(frames, "r")
        assert text_of(frames, "r") == "brief"
        (result,) = [frame for frame in frames if frame["message_type"] == "control_result"]
        assert result["data"]["action"] == "steer"
        assert upstream.requests[-1].body["messages"][-1] == {"role": "user", "content": "shorter"}


@pytest.mark.parametrize(
    ("action", "data", "param"),
    [
        ("pause", {"seconds": -1}, "seconds"),
        ("pause", {"second": 1}, "second"),
        ("steer", {}, "instruction"),
        ("feedback", {}, "rating"),
        ("feedback", {"rating": "so so"}, "rating"),
    ],
)
async def test_a_control_that_makes_no_sense_changes_nothing(
    server: Server, action: str, data: dict[str, Any], param: str
) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("r")
        await client.until("text-delta")
        await client.say(action, "r", **data)
        error = await client.hear()
        assert (error["message_type"], error["request_id"]) == ("error", "r")
        assert (error["data"]["param"], error["data"]["about"]) == (param, action)
        assert len(server.weir.pipeline.live) == 1


async def test_feedback_on_what_was_said_also_after_its_end(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("r")
        last = (await client.to_end("r"))[-1]["data"]["event_data"]["seq"]
        await client.say("feedback", "r", rating="up", remark="well said")
        result = await client.hear()
        assert (result["message_type"], result["request_id"]) == ("control_result", "r")
        assert result["data"] == {"action": "feedback", "position": last}


async def test_the_last_chats_are_remembered_and_no_more(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream, connected(server.url) as client:
        await server.register(upstream)
        for number in range(33):
            await client.ask(f"r{number}")
            await client.to_end(f"r{number}")
        await client.say("feedback", "r0", rating="up")
        assert (await client.hear())["data"]["code"] == "unknown_request_id"
        await client.say("feedback", "r1", rating="up")
        assert (await client.hear())["message_type"] == "control_result"


async def test_a_control_without_a_name_means_the_only_chat(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("one")
        await client.until("text-delta")
        await client.say("pause")
        assert (await client.until("control_result"))["request_id"] == "one"
        await client.ask("two")
        await client.until("text-delta")
        await client.say("cancel")
        assert (await client.until("error"))["data"]["code"] == "which_request_id"
        assert len(server.weir.pipeline.live) == 2


async def test_names_mean_nothing_on_another_socket(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream, connected(server.url) as ann, connected(server.url) as eve:
        await server.register(upstream)
        await ann.ask("r")
        await ann.until("text-delta")
        await eve.say("cancel", "r")
        assert (await eve.hear())["data"]["code"] == "unknown_request_id"
        await eve.ask("r")
        assert (await eve.until("text-delta"))["request_id"] == "r"


async def test_chats_end_with_their_socket(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream:
        await server.register(upstream)
        async with connected(server.url) as client:
            for name in ("one", "two", "three"):
                await client.ask(name)
                await client.until("text-delta")
        async with asyncio.timeout(1):
            await upstream.disconnected(3)
            await until(lambda: not server.weir.pipeline.live, "no stream left")
        assert not list(server.weir.sockets)


async def test_a_paused_chat_ends_with_its_socket(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream:
        await server.register(upstream)
        async with connected(server.url) as client:
            await client.ask("r")
            await client.until("text-delta")
            await client.say("pause", "r")
            await client.until("control_result")
        async with asyncio.timeout(1):
            await upstream.disconnected()


async def test_one_who_says_too_much_is_closed(server: Server) -> None:
    async with connected(server.url) as client:
        for _ in range(300):
            await client.say("ping")
        code, reason = await client.closed()
    assert code == 1008
    assert "messages" in reason
    assert not list(server.weir.sockets)


async def test_what_passes_is_counted(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream, connected(server.url, "ann", "s1") as client:
        await server.register(upstream)
        before = server.weir.sockets.get_statistics()
        assert (before["connections"], before["users"], before["messages_out"]) == (1, 1, 1)
        await client.ask()
        frames = await client.to_end()
        after = server.weir.sockets.get_statistics()
        assert (after["messages_in"], after["messages_out"]) == (1, 1 + len(frames))
        (socket,) = after["sockets"]
        assert (socket["user_id"], socket["session_id"], socket["chats"]) == ("ann", "s1", 0)
        assert socket["connection_id"] == client.first["data"]["connection_id"]
        shared = server.weir.fleet.stats.meter("~websocket")
        assert (shared.active, shared.tallies["total"].others["messages_out"]) == (1, 1 + len(frames))


async def test_a_program_around_weir_can_speak_to_a_client(server: Server) -> None:
    async with connected(server.url, "ann") as ann, connected(server.url, "bob") as bob:
        assert await server.weir.sockets.send_message("ann", {"data": {"text": "hi"}}) == 1
        assert await ann.hear() == {"message_type": "message", "data": {"text": "hi"}}
        assert await server.weir.sockets.send_message(bob.first["data"]["connection_id"], {"message_type": "bye"}) == 1
        assert await bob.hear() == {"message_type": "bye"}


async def test_leaving_lets_chats_end_then_closes(server: Server) -> None:
    gate = asyncio.Event()
    script = [*begun("a"), gate, sse(chunk(finish="stop")), sse("[DONE]")]
    async with ScriptedUpstream(script) as upstream, connected(server.url) as busy, connected(server.url) as idle:
        await server.register(upstream)
        await busy.ask("r")
        await busy.until("text-delta")
        for socket in server.weir.sockets:
            assert isinstance(socket.websocket, Socket)
            socket.websocket.leave()
        assert await idle.closed() == (1012, "Weir is shutting down")
        await busy.ask("late")
        (end,) = await busy.to_end("late")
        assert end["data"]["event_data"]["reason"] == "Weir is shutting down"
        gate.set()
        assert events(await busy.to_end("r"))[-1] == "finish"
        assert await busy.closed() == (1012, "Weir is shutting down")


async def test_it_works_under_a_server_that_is_set_up_otherwise() -> None:
    """As where the routes are mounted into somebody else's application."""
    async with serving(ws={}) as server, ScriptedUpstream(text("a"), hang_after(1)) as upstream:
        await server.register(upstream)
        async with connected(server.url) as client:
            await client.ask("r")
            assert events(await client.to_end("r"))[-1] == "finish"
            await client.ask("r")
            await client.until("text-delta")
        await upstream.disconnected()
        async with connected(server.url) as client:
            for _ in range(300):
                await client.say("ping")
            assert (await client.closed())[0] == 1008


DURABLE: dict[str, Any] = {"weir": {"durable": True}}


async def test_a_durable_chat_tells_its_stream_and_every_position(server: Server) -> None:
    async with ScriptedUpstream(text("a")) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("r", **DURABLE)
        opened, *frames = await client.to_end("r")
        assert (opened["message_type"], opened["request_id"]) == ("stream_opened", "r")
        assert [frame["data"]["position"].split("-")[:2] for frame in frames] == [["1", str(n)] for n in range(1, 6)]
        again = await server.ask("GET", f"/v1/streams/{opened['data']['stream_id']}?format=sse")
        assert again.body.count(b"id: ") == len(frames)


async def test_it_is_read_on_from_another_socket(server: Server) -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream([*begun("Hel"), gate, *text("lo")[2:]]) as upstream:
        await server.register(upstream)
        async with connected(server.url) as client:
            await client.ask("r", **DURABLE)
            stream_id = (await client.until("stream_opened"))["data"]["stream_id"]
            after = (await client.until("text-delta"))["data"]["position"]
        async with connected(server.url, "bob") as client:
            await client.say("resume", "again", stream_id=stream_id, after=after)
            gate.set()
            assert (await client.hear())["data"] == {"stream_id": stream_id}
            frames = await client.to_end("again")
            assert text_of(frames, "again") == "lo", "not exactly what came after"
            await client.say("resume", "whole", stream_id=stream_id)
            assert text_of(await client.to_end("whole"), "whole") == "Hello"
        assert len(upstream.requests) == 1


async def test_every_cut_is_resumed_exactly(server: Server) -> None:
    async with ScriptedUpstream(text("a", "b", "c")) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("r", **DURABLE)
        opened, *whole = await client.to_end("r")
        for count, frame in enumerate(whole[:-1], start=1):
            place = frame["data"]["position"]
            await client.say("resume", "r", after=place, **opened["data"])
            assert await client.to_end("r") == [opened, *whole[count:]], f"resumed after frame {count}"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"stream_id": "none"}, "there is no stream"),
        ({"stream_id": 1}, "stream_id: "),
        ({"stream_id": "{id}", "after": "x"}, "no position"),
        ({"stream_id": "{id}", "after": "1-99-{nonce}"}, "went backwards"),
        ({"stream_id": "{id}", "after": "1-2-00000000"}, "went backwards"),
    ],
)
async def test_what_cannot_be_read_on_ends_with_an_error(server: Server, data: dict[str, Any], told: str) -> None:
    async with ScriptedUpstream(text("a")) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("r", **DURABLE)
        opened, first, *_ = await client.to_end("r")
        known = {"id": opened["data"]["stream_id"], "nonce": first["data"]["position"][-8:]}
        filled = {name: it.format(**known) if isinstance(it, str) else it for name, it in data.items()}
        await client.say("resume", "again", **filled)
        end = (await client.to_end("again"))[-1]
        assert told in end["data"]["event_data"]["error"]


async def test_a_chat_that_goes_on_elsewhere_is_controlled_from_here(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream, connected(server.url) as one:
        await server.register(upstream)
        await one.ask("r", **DURABLE)
        stream_id = (await one.until("stream_opened"))["data"]["stream_id"]
        await one.until("text-delta")
        async with connected(server.url) as two:
            await two.say("resume", "mine", stream_id=stream_id)
            await two.until("text-delta")
            await two.say("cancel", "mine", reason="enough")
            said = [await two.hear(), await two.hear()]  # in the order in which they come about
            (result,) = [frame["data"] for frame in said if frame["message_type"] == "control_result"]
            assert result == {"action": "cancel", "position": 3}
            assert events(said) == ["abort"]
        assert (await one.until("abort"))["data"]["event_data"]["reason"] == "enough"
        await upstream.disconnected()


async def test_resume_without_a_stream_lets_a_pause_end(server: Server) -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream([*begun("a"), gate, *text("b")[2:]]) as upstream, connected(server.url) as client:
        await server.register(upstream)
        await client.ask("r", **DURABLE)
        await client.until("text-delta")
        await client.say("pause", "r")
        assert (await client.until("control_result"))["data"] == {"action": "pause", "position": 2}
        gate.set()
        await client.say("resume", "r")
        assert (await client.until("control_result"))["data"]["action"] == "resume"
        assert text_of(await client.to_end("r"), "r") == "b"


async def test_a_durable_chat_outlives_its_socket(server: Server) -> None:
    async with ScriptedUpstream(hang_after(1)) as upstream:
        await server.register(upstream)
        async with connected(server.url) as client:
            await client.ask("r", **DURABLE)
            stream_id = (await client.until("stream_opened"))["data"]["stream_id"]
            await client.until("text-delta")
        await until(lambda: not list(server.weir.sockets), "the socket's end")
        assert stream_id in server.weir.pipeline.live
        assert not upstream.disconnects
