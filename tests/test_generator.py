"""A mode is a class whose fields are its options."""

from collections.abc import AsyncGenerator

import pytest
from pydantic import ValidationError

from proxy.events import ENDS, Event, FinishStep, Recovered, SourceEnd, Start, Steered, TextDelta, Usage
from proxy.generator import MARKS, GeneratorConfig, GeneratorMode, StreamingGenerator
from proxy.merge import Merge
from proxy.registry import Registry
from proxy.testing import check_mode, merged, play, says, text_of

pytestmark = pytest.mark.anyio


class Loud(StreamingGenerator):
    """The smallest mode that does something."""

    marks: int = 1

    async def generate(self, merge: Merge) -> AsyncGenerator[Event, None]:
        async for event in merge:
            if isinstance(event, TextDelta):
                event = TextDelta(content=event.content + "!" * self.marks, source=event.source)
            yield event


async def test_a_mode_is_a_loop_over_what_came() -> None:
    async with merged(says("Hel", "lo")) as merge:
        assert text_of(await play(Loud(marks=2).generate(merge))) == "Hel!!lo!!"


async def test_it_is_held_to_the_rules() -> None:
    with pytest.raises(AssertionError, match="and should 'Hello"):
        await check_mode(Loud())


def test_its_options_are_checked_and_stay_as_they_are() -> None:
    config = GeneratorConfig(marks=3)
    assert Loud(**config).marks == 3
    with pytest.raises(ValidationError, match="speed"):
        Loud(speed=1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="frozen"):
        Loud().marks = 5


def test_every_mode_of_the_guide_is_there() -> None:
    registry = Registry.with_plugins()
    assert registry.modes() == sorted(GeneratorMode)
    for name in GeneratorMode:
        assert isinstance(registry.mode(name, {}), StreamingGenerator), f"{name} needs an option to be given"


def test_marks_are_what_nothing_may_overtake() -> None:
    assert ENDS | {Start, FinishStep, Recovered, SourceEnd, Steered, Usage} == MARKS
    assert not Loud.reorders
