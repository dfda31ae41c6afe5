"""When the reader is slower than the writers, what matters most goes first."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.events import (
    ENDS,
    Abort,
    Error,
    Event,
    Finish,
    FinishStep,
    ReasoningDelta,
    SourceEnd,
    Start,
    Steered,
    TextDelta,
    ToolInput,
    ToolInputDelta,
    ToolOutput,
    Usage,
    Vendor,
)
from proxy.generator import MARKS
from proxy.merge import MOST_EVENTS, MOST_SIZE, size_of
from proxy.modes.priority import Priority, Ranks
from proxy.testing import merged, play
from proxy.testing.merge import Script
from tests.modes.streams import scripts

pytestmark = pytest.mark.anyio

NAMES = {TextDelta: "text", ReasoningDelta: "thought", ToolInputDelta: "tool", FinishStep: "step", SourceEnd: "end"}


def name(event: Event) -> str:
    return event.source + " " + NAMES.get(type(event), type(event).__name__)


async def order(mode: Priority, *scripts: Script) -> list[str]:
    """In which order a reader gets it who comes when all has been said."""
    async with merged(*scripts) as merge:
        await merge.clock.sleep(10)
        return [name(event).strip() for event in await play(mode.generate(merge))]


def text(content: str = "x", index: int = 0) -> TextDelta:
    return TextDelta(content=content, index=index)


def thought() -> ReasoningDelta:
    return ReasoningDelta(content="hm")


def tool() -> ToolInputDelta:
    return ToolInputDelta(content="{}")


async def test_what_matters_most_goes_first() -> None:
    script = [Start(), thought(), text(), tool(), thought(), text(), tool(), Vendor()]
    got = await order(Priority(), script)
    assert got[:4] == ["a Start", "a Vendor", "a tool", "a tool"]
    assert got[4:] == ["a text", "a text", "a thought", "a thought", "a Error"]


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (Start(), "control"),
        (Steered(instruction="x"), "control"),
        (Vendor(), "control"),
        (Usage(), "control"),
        (SourceEnd(reason="finish"), "control"),
        (ToolInputDelta(), "tools"),
        (ToolInput(id="a", name="b"), "tools"),
        (ToolOutput(id="a"), "tools"),
        (TextDelta(content=""), "answers"),
        (Vendor(answer=True), "answers"),
        (ReasoningDelta(content=""), "thoughts"),
    ],
)
def test_the_kinds(event: Event, kind: str) -> None:
    assert Ranks(control=1, tools=2, answers=3, thoughts=4).of(event) == getattr(
        Ranks(control=1, tools=2, answers=3, thoughts=4), kind
    )


async def test_a_quick_reader_gets_everything_as_it_comes() -> None:
    script = [Start(), *(step for event in [thought(), text(), tool(), thought()] for step in (event, 0.1)), Finish()]
    async with merged(script) as merge:
        got = await play(Priority().generate(merge))
    assert [*map(id, got)] == [id(step) for step in script if isinstance(step, Event)]


@pytest.mark.parametrize("mark", [FinishStep(reason="stop"), Usage(), Steered(instruction="x"), Start(index=1)])
async def test_a_mark_overtakes_nothing_of_its_own_source_and_nothing_overtakes_it(mark: Event) -> None:
    got = await order(Priority(), [thought(), text(), mark, tool(), text()])
    assert got == ["a text", "a thought", f"a {name(mark).split()[-1]}", "a tool", "a text", "a Error"]


async def test_a_mark_lends_its_rank_to_what_comes_before_it() -> None:
    """So that an end comes soon, and after its own source's text."""
    got = await order(Priority(), [tool(), tool(), text(), 99.0], [0.1, text(), thought(), Error(message="cut")])
    assert got[:3] == ["b text", "b thought", "b end"], "the source that ended was kept waiting"
    assert got[3:6] == ["a tool", "a tool", "a text"]


async def test_between_equals_the_first_goes_first() -> None:
    got = await order(Priority(), [0.1, text(), 0.2, text(), 99.0], [text(), 0.2, text(), 99.0])
    assert got[:4] == ["b text", "a text", "b text", "a text"]


async def test_kinds_may_be_ranked_otherwise() -> None:
    got = await order(Priority(ranks=Ranks(thoughts=5, tools=-1)), [tool(), text(), thought(), Vendor()])
    assert got[:-1] == ["a thought", "a Vendor", "a text", "a tool"]


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        (0.5, ["a tool", "b text", "a text", "b thought", "a thought"]),
        (1.5, ["b text", "a tool", "b thought", "a text", "a thought"]),
        (10, ["b text", "b thought", "a tool", "a text", "a thought"]),
        (-10, ["a tool", "a text", "a thought", "b text", "b thought"]),
    ],
)
async def test_sources_may_be_ranked_too(rank: float, expected: list[str]) -> None:
    mode = Priority.model_validate({"sources": {"b": rank, "nobody": 7}})
    got = await order(mode, [thought(), text(), tool(), 99.0], [thought(), text(), 99.0])
    assert got[:5] == expected


async def test_the_end_of_one_of_several_sources_is_not_the_end_of_the_stream() -> None:
    got = await order(Priority(), [text(), Abort(reason="told to")], [text(), 20.0, text(), Finish()])
    assert got == ["a text", "a end", "b text", "b text", "b end", "Finish"]


class Counted:
    """A source that has much to say, and counts what was asked of it."""

    def __init__(self, event: Event):
        self.event = event
        self.said = 0

    def script(self) -> Iterator[Event]:
        for _ in range(100_000):
            self.said += 1
            yield (
                TextDelta(content=self.event.content)
                if isinstance(self.event, TextDelta)
                else ReasoningDelta(content="h")
            )


@pytest.mark.parametrize(
    ("event", "most"),
    [(TextDelta(content="a"), 2 * MOST_EVENTS), (TextDelta(content="a" * 1024), 2 * MOST_SIZE // 1024)],
)
async def test_a_source_is_held_back_when_the_reader_is_slow(event: TextDelta, most: int) -> None:
    one, other = Counted(event), Counted(event)
    async with merged(one.script(), other.script()) as merge:
        events = Priority().generate(merge)
        for taken in range(1, 21):
            await anext(events)
            await merge.clock.sleep(1)
            assert max(one.said, other.said) <= most + taken + 2
        assert min(one.said, other.said) >= most, "there is room, and it is not used"


async def test_however_much_comes_it_goes_on() -> None:
    one, two = ([TextDelta(content="a" * 1000) for _ in range(count)] for count in (500, 250))
    async with asyncio.timeout(5), merged(one, two) as merge:
        assert sum(map(size_of, await play(Priority().generate(merge)))) == 750_000


async def test_one_source_that_has_much_to_say_does_not_hide_another() -> None:
    noisy = Counted(ReasoningDelta(content="h"))
    async with merged(noisy.script(), [1.0, text(), Finish()]) as merge:
        events = Priority().generate(merge)
        await anext(events)
        await merge.clock.sleep(2)
        assert [name(await anext(events)) for _ in range(3)] == ["b text", "b end", "a thought"]


def kind_of(event: Event) -> str:
    ranks = Ranks(control=0, tools=1, answers=2, thoughts=3)
    return str(ranks.of(event))


@given(st.lists(scripts(), min_size=1, max_size=3), st.sampled_from([0.0, 0.01, 0.1]))
def test_order_is_kept_within_a_source_and_kind_and_across_marks(
    played: list[list[Event | float]], pause: float
) -> None:
    async def read() -> list[Event]:
        got = []
        async with merged(*played) as merge:
            async for event in Priority().generate(merge):
                got.append(event)
                await merge.clock.sleep(pause)
        return got

    got = asyncio.run(read())
    for source, script in zip("abc", played, strict=False):
        said = [event for event in script if isinstance(event, Event) and type(event) not in ENDS]
        mine = [event for event in got if event.source == source and type(event) not in {SourceEnd, *ENDS}]
        for kind in {kind_of(event) for event in said}:
            assert ids(mine, kind) == ids(said, kind), f"{source}: out of order"
        for mark in (event for event in said if type(event) in MARKS):
            before, after = split(said, mark), split(mine, mark)
            assert before == after, f"{source}: something overtook {mark}, or was overtaken by it"


def ids(events: Sequence[Event], kind: str) -> list[int]:
    return [id(event) for event in events if kind_of(event) == kind]


def split(events: Sequence[Event], mark: Event) -> set[int]:
    """What came before `mark`."""
    place = [id(event) for event in events].index(id(mark))
    return {id(event) for event in events[:place]}
