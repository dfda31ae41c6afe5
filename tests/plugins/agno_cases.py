"""agno's agents, their models on a scripted upstream. Run by test_agno_agent.py, where agno is installed."""

import asyncio
import base64
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from agno.agent import Agent
from agno.db.base import SessionType
from agno.db.in_memory import InMemoryDb
from agno.exceptions import InputCheckError
from agno.models.openai import OpenAIResponses
from agno.models.openai.like import OpenAILike
from agno.run.agent import RunCompletedEvent, RunContentEvent, RunErrorEvent
from agno.team import Team
from agno.tools import tool
from pydantic import BaseModel

from plugins.agno_agent import AgnoAdapter
from plugins.agno_copy import Watch, own_copy
from proxy.adapter import Messages
from proxy.errors import ConfigError, Kind, ProviderError
from proxy.events import (
    Finish,
    FinishStep,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolInput,
    ToolOutput,
    Usage,
)
from proxy.provider import ProviderConfig
from proxy.testing import (
    Answer,
    Script,
    ScriptedUpstream,
    Step,
    begun,
    check_adapter,
    chunk,
    cut_after,
    error_in_stream,
    hang_after,
    hang_before,
    play,
    refuse,
    reset_after,
    sse,
    status,
    text,
    text_of,
)
from tests.plugins.agno_agents import weather

pytestmark = pytest.mark.anyio

HELLO: Messages = [{"role": "user", "content": "hello"}]
MODULE = "agents_of_a_test"
COUNTS = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
MADE: list[Any] = []
Serving = Callable[[Any], AgnoAdapter]


@pytest.fixture
async def serving(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    """Makes an agent a provider."""
    async with aiohttp.ClientSession() as session:

        def serve(agent: Any) -> AgnoAdapter:
            module = ModuleType(MODULE)
            vars(module)["it"] = agent
            monkeypatch.setitem(sys.modules, MODULE, module)
            return AgnoAdapter(config(), session)

        yield serve
    for made in MADE:
        if made.async_client is not None:
            await made.async_client.close()
    MADE.clear()


def config(**fields: Any) -> ProviderConfig:
    known = {"provider_id": "a", "provider_type": "agno_native", "model_name": "writer"}
    return ProviderConfig(**{**known, "params": {"agent": f"{MODULE}:it"}, **fields})


def model(upstream: ScriptedUpstream | str, **fields: Any) -> OpenAILike:
    url = upstream if isinstance(upstream, str) else upstream.url
    MADE.append(OpenAILike(id="m", base_url=url, api_key="sk-agent-0123456789", **fields))
    return MADE[-1]


def calls(name: str, arguments: str, call: str = "call_1") -> list[Step]:
    """An answer that asks for a tool."""
    asked = [{"index": 0, "id": call, "type": "function", "function": {"name": name, "arguments": arguments}}]
    end = [sse(chunk(finish="tool_calls")), sse(chunk(choices=[], usage=COUNTS)), sse("[DONE]")]
    return [Answer(), sse(chunk({"role": "assistant", "content": None, "tool_calls": asked})), *end]


def usage(tokens_in: int, tokens_out: int) -> Usage:
    details = {"prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}}
    return Usage(input_tokens=tokens_in, output_tokens=tokens_out, details=details)


async def failed(adapter: AgnoAdapter, **fields: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await play(adapter.stream_chat(HELLO, **fields))
    return caught.value


async def test_an_agent_answers_like_any_provider(serving: Serving) -> None:
    async with ScriptedUpstream(text("Hel", "lo")) as upstream:
        events = await play(serving(Agent(model=model(upstream))).stream_chat(HELLO, None, temperature=1, x_unknown=1))
        assert events == [
            Start(model="writer"),
            TextDelta(content="Hel"),
            TextDelta(content="lo"),
            FinishStep(reason="stop"),
            usage(5, 2),
            Finish(usage=usage(5, 2)),
        ]


async def test_a_tool_the_agent_runs_is_told_and_not_asked_for(serving: Serving) -> None:
    async with ScriptedUpstream(calls("weather", '{"city": "Rome"}'), text("Sunny.", usage=(20, 5))) as upstream:
        events = await play(serving(Agent(model=model(upstream), tools=[weather])).stream_chat(HELLO))
        assert events == [
            Start(model="writer"),
            ToolInput(id="call_1", name="weather", input={"city": "Rome"}),
            ToolOutput(id="call_1", output="sunny in Rome"),
            TextDelta(content="Sunny."),
            FinishStep(reason="stop"),
            usage(27, 8),
            Finish(usage=usage(27, 8)),
        ]


async def test_a_tool_that_fails_says_so_once(serving: Serving) -> None:
    def weather(city: str) -> str:
        """Fails."""
        raise ValueError(f"no {city}")

    async with ScriptedUpstream(calls("weather", '{"city": "Rome"}'), text("Alas.")) as upstream:
        events = await play(serving(Agent(model=model(upstream), tools=[weather])).stream_chat(HELLO))
        said = [event for event in events if isinstance(event, ToolOutput)]
        assert said == [ToolOutput(id="call_1", error="no Rome")], "agno says it twice"
        assert text_of(events) == "Alas.", "the agent knows what to do about it"


REFUSALS = {500: Kind.SERVER, 429: Kind.RATE_LIMIT, 401: Kind.AUTH, 404: Kind.MISSING, 400: Kind.REJECTED}


@pytest.mark.parametrize(("code", "kind"), REFUSALS.items())
async def test_what_its_model_is_refused_keeps_its_kind(code: int, kind: Kind, serving: Serving) -> None:
    """agno's event has the words only. Nor does agno ask again, whatever the operator wished of it."""
    async with ScriptedUpstream(status(code, "not today", retry_after="7")) as upstream:
        agent = Agent(model=model(upstream, max_retries=5, retries=2, delay_between_retries=0), retries=2)
        failure = await failed(serving(agent))
        assert (failure.kind, failure.message, failure.upstream_status) == (kind, "not today", code)
        assert failure.retry_after == 7
        assert len(upstream.requests) == 1, "Weir retries; agno does not"
        assert (agent.retries, agent.model.retries, agent.model.max_retries) == (2, 2, 5), "the operator's is untouched"


BROKEN: dict[str, tuple[Script, Kind]] = {
    "cut": (cut_after(2), Kind.CUT),
    "cut, but counted": ([*begun("la"), sse(chunk(choices=[], usage=COUNTS)), sse("[DONE]")], Kind.CUT),
    "cut before anything": ([Answer()], Kind.CUT),
    "cut in a tool call": (calls("weather", '{"city": "Rome"}')[:2], Kind.CUT),
    "reset": (reset_after(2), Kind.SERVER),
    "an error in the stream": (error_in_stream("overloaded", after=1), Kind.SERVER),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_stream_that_breaks_is_no_answer(name: str, serving: Serving) -> None:
    """agno takes what was cut for complete, and would run a tool with half its arguments."""
    script, kind = BROKEN[name]
    async with ScriptedUpstream(script) as upstream:
        failure = await failed(serving(Agent(model=model(upstream), tools=[weather])))
        assert (failure.kind, len(upstream.requests)) == (kind, 1), failure.message


@pytest.mark.parametrize("end", ["response.completed", "response.incomplete", "response.failed", None])
async def test_openais_other_wire_is_watched_too(end: str | None, serving: Serving) -> None:
    """It is the one that agno prefers, and of its ends agno looks at the first only."""
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    done = {"id": "r", "output": [], "usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7, **details}}
    said = [{"type": "response.created", "response": {"id": "r"}}, {"type": "response.output_text.delta", "delta": "a"}]
    script: Script = [Answer(), sse(*said, *([{"type": end, "response": done}] if end else []))]
    async with ScriptedUpstream(script) as upstream:
        MADE.append(OpenAIResponses(id="m", base_url=upstream.url, api_key="sk-agent-0123456789"))
        adapter = serving(Agent(model=MADE[-1]))
        if end in ("response.failed", None):
            assert (await failed(adapter)).kind is Kind.CUT
        else:
            events = await play(adapter.stream_chat(HELLO))
            reason = "stop" if end == "response.completed" else "length"
            assert [event for event in events if isinstance(event, TextDelta | FinishStep)] == [
                TextDelta(content="a"),
                FinishStep(reason=reason),
            ]


async def test_a_model_that_is_not_there(serving: Serving) -> None:
    failure = await failed(serving(Agent(model=model(refuse()))))
    assert (failure.kind, failure.upstream_status) == (Kind.SERVER, None)


async def test_an_answer_that_reached_its_limit_says_so(serving: Serving) -> None:
    async with ScriptedUpstream(text("Hel", finish="length")) as upstream:
        events = await play(serving(Agent(model=model(upstream))).stream_chat(HELLO))
        assert FinishStep(reason="length") in events


async def test_thoughts_are_told_as_such(serving: Serving) -> None:
    thought = sse(chunk({"role": "assistant", "reasoning_content": "Hm."}))
    async with ScriptedUpstream([Answer(), thought, *text("Yes.")[1:]]) as upstream:
        events = await play(serving(Agent(model=model(upstream))).stream_chat(HELLO))
        assert events[1:3] == [ReasoningDelta(content="Hm."), TextDelta(content="Yes.")]


async def test_an_agent_with_a_schema_answers_json(serving: Serving) -> None:
    class Sky(BaseModel):
        colour: str

    said = {"role": "assistant", "content": '{"colour": "blue"}'}
    whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    body = {**whole, "choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}
    answer: Script = [Answer(200, {"content-type": "application/json"}), sse(body)[6:]]
    async with ScriptedUpstream(answer) as upstream:
        events = await play(serving(Agent(model=model(upstream), output_schema=Sky)).stream_chat(HELLO))
        assert text_of(events) == '{"colour":"blue"}'


async def test_an_agent_that_waits_for_a_person_is_no_answer(serving: Serving) -> None:
    @tool(requires_confirmation=True)  # type: ignore[untyped-decorator]
    def wipe(path: str) -> str:
        """Removes it all."""
        raise AssertionError("nobody confirmed it")

    async with ScriptedUpstream(calls("wipe", '{"path": "/"}')) as upstream:
        failure = await failed(serving(Agent(model=model(upstream), tools=[wipe])))
        assert (failure.kind, "wipe" in failure.message) == (Kind.REJECTED, True)


async def test_a_guardrail_refuses_the_client(serving: Serving) -> None:
    def no_hello(run_input: Any) -> None:
        raise InputCheckError("no greetings here")

    async with ScriptedUpstream(text("a")) as upstream:
        failure = await failed(serving(Agent(model=model(upstream), pre_hooks=[no_hello])))
        assert (failure.kind, failure.message) == (Kind.REJECTED, "no greetings here")
        assert not upstream.requests


def team(upstream: ScriptedUpstream, **fields: Any) -> Team:
    scout = Agent(name="scout", model=model(upstream, max_retries=5), tools=[weather], retries=2)
    return Team(members=[scout], model=model(upstream), **fields)


DELEGATES = calls("delegate_task_to_member", '{"member_id": "scout", "task": "look"}')
LOOKS = calls("weather", '{"city": "Rome"}', "call_2")


@pytest.mark.parametrize("events_of_members", [True, False])
async def test_a_team_speaks_with_one_voice(events_of_members: bool, serving: Serving) -> None:
    scripts = [DELEGATES, LOOKS, text("I saw the sun."), text("Sunny.", usage=(20, 5))]
    async with ScriptedUpstream(*scripts) as upstream:
        agent = team(upstream, stream_member_events=events_of_members)
        events = await play(serving(agent).stream_chat(HELLO))
        assert text_of(events) == "Sunny.", "what a member says is for its leader"
        names = [event.name for event in events if isinstance(event, ToolInput)]
        assert names == ["delegate_task_to_member", *(["weather"] if events_of_members else [])]
        assert events[-1] == Finish(usage=usage(7 + 7 + 5 + 20, 3 + 3 + 2 + 5)), "members are paid, too"


async def test_a_team_may_let_a_member_answer(serving: Serving) -> None:
    async with ScriptedUpstream(DELEGATES, text("I saw ", "the sun.")) as upstream:
        events = await play(serving(team(upstream, respond_directly=True)).stream_chat(HELLO))
        assert [event.content for event in events if isinstance(event, TextDelta)] == ["I saw ", "the sun."]


async def test_a_member_that_fails_is_not_asked_again(serving: Serving) -> None:
    async with ScriptedUpstream(DELEGATES, status(500), text("Nobody knows.")) as upstream:
        events = await play(serving(team(upstream)).stream_chat(HELLO))
        assert (text_of(events), len(upstream.requests)) == ("Nobody knows.", 3)


async def test_messages_reach_the_model_whole(serving: Serving) -> None:
    call = {"id": "call_9", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}", "detail": "low"}}
    link = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    sound = {"type": "input_audio", "input_audio": {"data": png, "format": "mp3"}}
    asked: Messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_9", "content": "a cat"},
        {"role": "user", "content": [{"type": "text", "text": "And these?"}, picture, link, sound]},
    ]
    async with ScriptedUpstream(text("a")) as upstream:
        await play(serving(Agent(model=model(upstream), instructions="Purr.")).stream_chat(asked))
        assert upstream.requests[0].body["messages"] == [
            {"role": "system", "content": "Purr."},
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is this?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "a cat", "tool_call_id": "call_9"},
            {"role": "user", "content": [{"type": "text", "text": "And these?"}, picture, link, sound]},
        ]


NOT_FOR_AGENTS: dict[str, dict[str, Any]] = {
    "an unknown part": {"role": "user", "content": [{"type": "hologram"}]},
    "no text": {"role": "user", "content": [{"type": "text"}]},
    "a file of this machine": {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
    },
    "an unknown role": {"role": "function", "content": "a"},
    "a number": {"role": "user", "content": 5},
}


@pytest.mark.parametrize("name", NOT_FOR_AGENTS)
async def test_what_no_agent_understands_is_refused(name: str, serving: Serving) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        with pytest.raises(ProviderError, match=r"messages\[1\]") as caught:
            await play(serving(Agent(model=model(upstream))).stream_chat([*HELLO, NOT_FOR_AGENTS[name]]))
        assert (caught.value.kind, upstream.requests) == (Kind.REJECTED, [])


async def test_the_adapter_obeys_every_rule(serving: Serving) -> None:
    async with ScriptedUpstream(text("Hel", "lo")) as upstream:
        await check_adapter(serving(Agent(model=model(upstream), tools=[weather])))


async def test_two_runs_at_once_do_not_meet(serving: Serving) -> None:
    go = asyncio.Event()
    slow = [*begun("one "), go, *text("two")[2:]]
    async with ScriptedUpstream(slow, calls("weather", '{"city": "Rome"}'), text("three")) as upstream:
        adapter = serving(Agent(model=model(upstream), tools=[weather], db=InMemoryDb()))
        first = adapter.stream_chat(HELLO)
        before = [await anext(first), await anext(first)]
        assert text_of(await play(adapter.stream_chat(HELLO))) == "three"
        go.set()
        rest = await play(first)
        assert text_of([*before, *rest]) == "one two"
        assert rest[-1] == Finish(usage=usage(5, 2))


async def test_runs_share_a_client(serving: Serving) -> None:
    async with ScriptedUpstream(text("a")) as upstream:
        agent = Agent(model=model(upstream))
        adapter = serving(agent)
        clients = [(await play(adapter.stream_chat(HELLO)), agent.model.async_client)[1] for _ in range(2)]
        assert clients[0] is clients[1] is not None, "each would have connections, and TLS, of its own"


async def test_what_one_client_said_is_not_another_s_past(serving: Serving) -> None:
    db = InMemoryDb()
    async with ScriptedUpstream(text("a")) as upstream:
        adapter = serving(Agent(model=model(upstream), db=db, add_history_to_context=True, session_id="everybody"))
        for fields in ({"user": "ann"}, {}, {}):
            await play(adapter.stream_chat(HELLO, None, **fields))
        assert all(len(request.body["messages"]) == 1 for request in upstream.requests), "it remembers somebody else"
        users = [session.user_id for session in db.get_sessions(session_type=SessionType.AGENT)]
        assert ("ann" in users, len(set(users))) == (True, 3), "who does not say who it is, is nobody known"


@pytest.mark.parametrize("script", [hang_before(), hang_after(2)], ids=["before", "after"])
@pytest.mark.parametrize("of_a_team", [False, True], ids=["agent", "team"])
async def test_a_reader_who_leaves_ends_the_upstream_call(of_a_team: bool, script: Any, serving: Serving) -> None:
    """agno itself lets a team's members run on."""
    async with ScriptedUpstream(*([DELEGATES] if of_a_team else []), script) as upstream:
        adapter = serving(team(upstream) if of_a_team else Agent(model=model(upstream)))
        reading = asyncio.create_task(play(adapter.stream_chat(HELLO)))
        await upstream.until(lambda it: len(it.requests) == 1 + of_a_team)
        tasks = asyncio.all_tasks()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await upstream.disconnected()
        left = [task for task in asyncio.all_tasks() & tasks if "agno" in str(task.get_coro())]
        assert not left, f"still at work: {left}"


async def test_a_stream_that_is_closed_ends_the_upstream_call(serving: Serving) -> None:
    async with ScriptedUpstream(hang_after(2)) as upstream:
        stream = serving(Agent(model=model(upstream))).stream_chat(HELLO)
        while not isinstance(await anext(stream), TextDelta):
            pass
        await stream.aclose()
        await upstream.disconnected()


class Parrot:
    """The least that agno calls an agent."""

    id = name = "parrot"

    def __init__(self, *script: Any):
        self.script = script

    async def arun(self, input: Any, **fields: Any) -> AsyncGenerator[Any, None]:
        for step in self.script:
            if isinstance(step, Exception):
                raise step
            yield step


async def test_the_least_of_agents_will_do(serving: Serving) -> None:
    spoke, done = RunContentEvent(content="Hello."), RunCompletedEvent(content="Hello.")
    for script in ([spoke, done], [done], ["Hel", "lo.", RunCompletedEvent()]):
        assert text_of(await play(serving(Parrot(*script)).stream_chat(HELLO))) == "Hello."
    assert (await failed(serving(Parrot(spoke)))).kind is Kind.CUT
    assert (await failed(serving(Parrot(RunErrorEvent(content="ouch"))))).message == "ouch"
    broken = await failed(serving(Parrot(spoke, KeyError("wing"))))
    assert (broken.kind, broken.message) == (Kind.SERVER, "KeyError: 'wing'")


async def test_another_model_is_not_the_agents(serving: Serving) -> None:
    assert (await failed(serving(Parrot()), model="gpt-5")).kind is Kind.MISSING


def test_agno_reports_to_nobody() -> None:
    agent = Agent(model=model("http://localhost"))
    assert (agent.telemetry, own_copy(agent, Watch()).telemetry) == (True, False)


async def test_the_operator_is_told_what_is_wrong(serving: Serving) -> None:
    class Stubborn(Agent):  # type: ignore[misc]
        def __init__(self, word: str):
            super().__init__(model=model(word))

    wrong = {
        "it is no agno Agent or Team but str": "a text",
        "it is no agno Agent or Team but type": Agent,
        "has no model": Agent(),
        "cannot be copied": Stubborn("http://localhost"),
    }
    for what, agent in wrong.items():
        with pytest.raises(ConfigError, match=what):
            await serving(agent).create_model()
    adapter = serving(Agent(model=model("http://localhost")))
    await adapter.create_model()
    settings: dict[str, dict[str, Any]] = {
        "'module:attribute'": {"params": {}},
        "such as 'my_agents:writer'": {"params": {"agent": "my_agents.writer"}},
        "'nowhere' cannot be imported": {"params": {"agent": "nowhere:it"}},
        "other is not there; agents in agents_of_a_test: it": {"params": {"agent": f"{MODULE}:other"}},
        "params.speed is unknown": {"params": {"agent": f"{MODULE}:it", "speed": 1}},
        "brings its own model": {"api_key": "sk-0123456789"},
    }
    for what, fields in settings.items():
        with pytest.raises(ConfigError, match=what):
            await AgnoAdapter(config(**fields), adapter.session).create_model()
