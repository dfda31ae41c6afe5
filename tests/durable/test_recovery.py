"""What becomes of a stream whose producer died: it fails, begins anew, or goes on, as its request wants it."""

import asyncio
from typing import Any

import pytest

from proxy.errors import Kind, ProviderError, WeirError
from proxy.events import Error, Event, Finish, FinishStep, Recovered, Start, Steered, TextDelta, ToolInputDelta, Usage
from proxy.state.sessions import SessionRef
from proxy.state.stream_log import Once
from proxy.testing import Played, ScriptedAdapter, says, scripted, text_of
from tests.durable.replicas import OWNER, Fleet, Reading, Replica, all_of, log_holds, told
from tests.journeys import HANG
from tests.process import until

pytestmark = pytest.mark.anyio

A = TextDelta(content="la ")
CUT: Played = [Start(), A, A, HANG]


def provider(*scripts: Played, **config: Any) -> ScriptedAdapter:
    return scripted("a", *scripts, models=["m"], **config)


async def orphan(fleet: Fleet, heir: ScriptedAdapter, script: Played = CUT, count: int = 3, **weir: Any) -> Reading:
    """What is read of a stream whose producer died after so many events, and which `heir` is asked about."""
    one = await fleet(provider(script))
    first = await one.ask(weir=weir)
    await log_holds(one, first.id, count)
    await one.die()
    other = await fleet(heir)
    reading = Reading(await other.read(first.id))
    async with asyncio.timeout(10):
        await reading.all()
    return reading


def marks(events: list[Event]) -> list[tuple[str, int]]:
    return [(event.how, event.after) for event in events if isinstance(event, Recovered)]


async def test_by_default_it_fails_and_what_was_said_stands(fleet: Fleet) -> None:
    heir = provider(says("never"))
    reading = await orphan(fleet, heir)
    assert told(reading.events) == ["start", "text-delta", "text-delta", "data-recovery", "error"]
    assert (text_of(reading.events), marks(reading.events)) == ("la la ", [("failed", 0)])
    assert isinstance(reading.events[-1], Error)
    assert reading.events[-1].code == "replica_lost"
    assert [place.epoch for place in reading.places] == [1, 1, 1, 2, 2]
    assert [place.seq for place in reading.places] == [1, 2, 3, 4, 5]
    assert not heir.calls, "a provider was asked again, and nobody wanted that"


async def test_restarted_it_says_from_where_to_discard(fleet: Fleet) -> None:
    heir = provider(says("new"))
    reading = await orphan(fleet, heir, recovery="restart")
    assert told(reading.events)[3:] == ["data-recovery", "text-delta", "finish-step", "finish"]
    assert marks(reading.events) == [("restarted", 0)]
    assert text_of(reading.events[4:]) == "new"
    assert [messages for messages, *_ in heir.calls] == [[{"role": "user", "content": "hi"}]]


async def test_after_steering_only_what_answers_the_instruction_is_said_anew(fleet: Fleet) -> None:
    one = await fleet(provider(CUT, CUT))
    first = await one.ask(weir={"recovery": "restart"})
    await log_holds(one, first.id, 3)
    assert await one.house.pipeline.live[first.id].steer("shorter") == 4
    await log_holds(one, first.id, 6)
    await one.die()
    heir = provider(says("new"))
    events = await all_of(await (await fleet(heir)).read(first.id))
    assert isinstance(events[3], Steered)
    assert marks(events) == [("restarted", 4)]
    assert heir.calls[0][0] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "la la "},
        {"role": "user", "content": "shorter"},
    ]


async def test_continued_it_takes_up_the_text_where_it_ends(fleet: Fleet) -> None:
    heir = provider(says("end"), prefill=True)
    reading = await orphan(fleet, heir, recovery="continue")
    assert marks(reading.events) == [("continued", 0)]
    assert text_of(reading.events) == "la la end"
    assert told(reading.events).count("start") == 1, "where it goes on, nothing begins"
    assert heir.calls[0][0] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "la la"}]


CANNOT_GO_ON: dict[str, tuple[Played, dict[str, Any]]] = {
    "a model that takes no prefill": (CUT, {"prefill": False}),
    "a model of which nobody knows": (CUT, {}),
    "a tool call": ([Start(), A, ToolInputDelta(id="t", name="f"), HANG], {"prefill": True}),
    "a second choice": ([Start(), A, TextDelta(content="b", index=1), HANG], {"prefill": True}),
}


@pytest.mark.parametrize("case", CANNOT_GO_ON)
async def test_what_cannot_be_continued_fails(fleet: Fleet, case: str) -> None:
    script, config = CANNOT_GO_ON[case]
    heir = provider(says("never"), **config)
    reading = await orphan(fleet, heir, script, recovery="continue")
    assert (marks(reading.events), told(reading.events)[-1]) == ([("failed", 0)], "error"), case
    assert not heir.calls, case


async def test_only_those_who_take_prefill_are_asked_to_continue(fleet: Fleet) -> None:
    one = await fleet(provider(CUT))
    first = await one.ask(weir={"recovery": "continue"})
    await log_holds(one, first.id, 3)
    await one.die()
    preferred = scripted("a", says("never"), models=["m"], priority=0)
    able = scripted("b", says("end"), models=["m"], priority=9, prefill=True)
    events = await all_of(await (await fleet(preferred, able)).read(first.id))
    assert text_of(events) == "la la end"
    assert (len(preferred.calls), len(able.calls)) == (0, 1)


async def test_it_is_recovered_once_and_no_more(fleet: Fleet) -> None:
    one = await fleet(provider(CUT))
    first = await one.ask(weir={"recovery": "restart"})
    await log_holds(one, first.id, 3)
    await one.die()
    two = await fleet(provider([A, HANG]))
    await log_holds(two, first.id, 5)
    await two.die()
    last = provider(says("never"))
    reading = Reading(await (await fleet(last)).read(first.id))
    await reading.all()
    assert marks(reading.events) == [("restarted", 0), ("failed", 0)]
    assert [place.epoch for place in reading.places] == [1, 1, 1, 2, 2, 3, 3]
    assert not last.calls


async def test_who_takes_over_does_not_mend_the_provider_as_well(fleet: Fleet) -> None:
    heir = provider([A, HANG])
    one = await fleet(provider(CUT))
    first = await one.ask(weir={"recovery": "restart"})
    await log_holds(one, first.id, 3)
    await one.die()
    heir.scripts = [[A, ProviderError(Kind.CUT, "cut")], says("never")]
    events = await all_of(await (await fleet(heir)).read(first.id))
    assert marks(events) == [("restarted", 0), ("failed", 0)]
    assert len(heir.calls) == 1


async def test_where_too_much_is_asked_again_already_it_fails(fleet: Fleet) -> None:
    one = await fleet(provider(CUT))
    first = await one.ask(weir={"recovery": "restart"})
    await log_holds(one, first.id, 3)
    await one.die()
    heir = provider(says("never"))
    other = await fleet(heir)
    other.house.failover.budget.retrying = 3
    assert marks(await all_of(await other.read(first.id))) == [("failed", 0)]
    assert not heir.calls


async def test_where_nobody_serves_its_model_any_more_it_fails(fleet: Fleet) -> None:
    one = await fleet(provider(CUT))
    first = await one.ask(weir={"recovery": "restart"})
    await log_holds(one, first.id, 3)
    await one.die()
    assert marks(await all_of(await (await fleet()).read(first.id))) == [("failed", 0)]


async def test_one_that_had_said_nothing_has_never_begun(fleet: Fleet) -> None:
    """It has a status of its own, and its idempotency key may be used again."""
    once = Once("key", "digest")
    one = await fleet(provider([HANG]))
    first = await one.ask(once=once)
    await until(lambda: one.house.pipeline.live, "a stream that opens")
    await one.die()
    other = await fleet(provider(says("new")))
    with pytest.raises(WeirError) as caught:
        await all_of(await other.read(first.id))
    assert (caught.value.status, caught.value.code) == (503, "replica_lost")
    await until(lambda: not [*other.streams._produced], "its end to be noted")
    again = await other.ask(once=once)
    assert text_of(await all_of(again)) == "new"


@pytest.mark.parametrize("recovery", ["fail", "restart", "continue"])
async def test_an_answer_that_lacks_nothing_but_its_end_is_complete(fleet: Fleet, recovery: str) -> None:
    *said, _ = says("a", "b", usage=None)
    used = Usage(input_tokens=3, output_tokens=2)
    heir = provider(says("never"), prefill=True)
    reading = await orphan(fleet, heir, [*said, used, HANG], count=5, recovery=recovery)
    assert told(reading.events)[-2:] == ["data-usage", "finish"], "a whole answer was taken for a broken one"
    assert (text_of(reading.events), marks(reading.events), heir.calls) == ("ab", [], [])
    finish = reading.events[-1]
    assert isinstance(finish, Finish)
    assert finish.usage is not None
    assert (finish.usage.input_tokens, finish.usage.output_tokens) == (3, 2)


async def test_an_answer_is_not_complete_before_each_choice_that_was_asked_for_has_begun(fleet: Fleet) -> None:
    one = await fleet(provider([*says("a")[:-1], HANG]))
    first = await one.ask(n=2)
    await log_holds(one, first.id, 3)
    await one.die()
    events = await all_of(await (await fleet(provider(says("never")))).read(first.id))
    assert (told(events)[-1], marks(events)) == ("error", [("failed", 0)]), "a cut answer ended as if it were whole"


async def test_one_of_which_not_all_is_understood_is_not_taken_for_complete(fleet: Fleet) -> None:
    one = await fleet(provider([*says("a")[:-1], HANG]))
    first = await one.ask()
    await log_holds(one, first.id, 3)
    await one.die()
    for seq in range(4, 60):
        told = "data-new" if seq == 58 else "data-usage"
        await one.store.client.xadd(one.streams.logs.log(first.id), {"a": f'[{{"type":"{told}"}}]'}, id=f"1-{seq}")
    other = await fleet(provider(says("never")))

    async def ended() -> Any:
        return (await other.streams.status(first.id, OWNER))["end"]

    assert await until(ended, "its end") == "error"


async def test_one_that_another_version_wrote_fails_and_is_not_taken_over_again_and_again(fleet: Fleet) -> None:
    one = await fleet(provider(CUT))
    first = await one.ask(weir={"recovery": "restart"})
    await log_holds(one, first.id, 3)
    await one.die()
    for place, array in (("1-4", '[{"type":"data-new"}]'), ("1-5", '["understood"]')):
        await one.store.client.xadd(one.streams.logs.log(first.id), {"a": array}, id=place)
    other = await fleet(provider(says("never")))

    async def ended() -> bool:
        return bool((await other.streams.status(first.id, OWNER))["state"] == "ended")

    await until(ended, "its end")
    status = await other.streams.status(first.id, OWNER)
    assert (status["end"], status["recoveries"]) == ("error", 1)


async def session_of(replica: Replica, session_id: str) -> list[tuple[str, str | None]]:
    """State and answer of each turn."""
    session = await replica.house.pipeline.sessions.load(SessionRef.of(OWNER, session_id))
    assert session is not None
    return [(turn.state, _text(turn.answers)) for turn in session.turns]


def _text(answers: Any) -> str | None:
    message = answers[0].message if answers else None
    return message["content"] if message else None


@pytest.mark.parametrize(
    ("recovery", "kept"),
    [("fail", ("broken", "la la ")), ("restart", ("finished", "end")), ("continue", ("finished", "la la end"))],
)
async def test_its_session_keeps_what_was_said_in_the_right_turn(
    fleet: Fleet, recovery: str, kept: tuple[str, str]
) -> None:
    one = await fleet(provider(says("before"), CUT))
    weir = {"session_id": "s1", "history": True, "recovery": recovery}
    await all_of(await one.ask(weir=weir))
    first = await one.ask(weir=weir)
    await log_holds(one, first.id, 3)
    await one.die()
    heir = provider(says("end"), prefill=True)
    other = await fleet(heir)
    await all_of(await other.read(first.id))
    await until(lambda: not [*other.streams._produced], "its end to be noted")
    turns = await session_of(other, "s1")
    assert turns[0][1] == "before"
    assert len(turns) == 2, f"the turn was kept more than once: {turns}"
    assert turns[1] == kept
    if heir.calls:
        asked = [message["content"] for message in heir.calls[0][0]]
        assert asked[:3] == ["hi", "before", "hi"], "the history is not what it was"


async def test_its_readers_elsewhere_go_on_whoever_takes_it_over(fleet: Fleet) -> None:
    one = await fleet(provider(CUT))
    heirs = [provider([TextDelta(content="end"), FinishStep(reason="stop"), Finish()], prefill=True) for _ in range(2)]
    others = [await fleet(heir) for heir in heirs]
    first = await one.ask(weir={"recovery": "continue"})
    readings = [Reading(await other.read(first.id)) for other in others for _ in range(2)]
    tasks = [asyncio.create_task(reading.all()) for reading in readings]
    await until(lambda: all(len(reading.events) == 3 for reading in readings), "what was said")
    await one.die()
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)
    assert {text_of(reading.events) for reading in readings} == {"la la end"}
    assert sum(len(heir.calls) for heir in heirs) == 1, "it was not taken over by exactly one"
