"""The example for adapters keeps the rules of its seam, and does as it says."""

import asyncio
import math
from typing import Any

import pytest

from plugins.echo import EchoAdapter
from proxy.errors import ConfigError, Kind, ProviderError
from proxy.events import Finish, FinishStep, Start, TextDelta, Usage
from proxy.provider import ProviderConfig
from proxy.registry import Registry
from proxy.testing import check_adapter, play, text_of
from tests.journeys import NO_SESSION, House, idle, skip

pytestmark = pytest.mark.anyio


def echo(**params: Any) -> EchoAdapter:
    config = ProviderConfig(provider_id="echo", provider_type="echo", model_name="parrot", models=["m"], params=params)
    return EchoAdapter(config, NO_SESSION)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


async def test_it_keeps_the_rules() -> None:
    await check_adapter(echo())


def test_naming_it_brings_the_type() -> None:
    assert Registry.with_plugins(["plugins.echo"]).adapter("echo") is EchoAdapter


async def test_it_answers_with_what_the_user_said_last_word_by_word() -> None:
    messages = [user("never mind"), {"role": "assistant", "content": "what?"}, user("to be,\nor not")]
    assert await play(echo().stream_chat(messages)) == [
        Start(model="parrot"),
        *(TextDelta(content=word) for word in ("to", " be,", "\nor", " not")),
        FinishStep(reason="stop"),
        Finish(usage=Usage(input_tokens=7, output_tokens=4)),
    ]


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
async def test_it_says_no_more_than_it_may(limit: str) -> None:
    *_, step, finish = events = await play(echo().stream_chat([user("a b c")], None, **{limit: 2}))
    assert text_of(events) == "a b"
    assert step == FinishStep(reason="length")
    assert finish == Finish(usage=Usage(input_tokens=3, output_tokens=2))


@pytest.mark.parametrize("content", ["a", [{"type": "image_url", "image_url": {}}, {"type": "text", "text": "a"}]])
async def test_content_may_come_in_parts(content: Any) -> None:
    assert text_of(await play(echo().stream_chat([user(content)]))) == "a"


@pytest.mark.parametrize("content", ["", " ", None, [], 5, {"text": "a"}, [["a"], {"text": 5}]])
async def test_who_says_nothing_hears_nothing(content: Any) -> None:
    first, *_, last = await play(echo().stream_chat([user(content)]))
    assert (first, last) == (Start(model="parrot"), Finish(usage=Usage()))


async def test_without_a_user_it_is_the_clients_mistake() -> None:
    with pytest.raises(ProviderError, match="needs a message from the user") as caught:
        await play(echo().stream_chat([{"role": "system", "content": "be kind"}]))
    assert caught.value.kind is Kind.REJECTED


async def test_a_delay_is_kept_between_words() -> None:
    stream = echo(delay=30).stream_chat([user("a")])
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await idle()
    assert not waiting.done(), "the word came at once"
    skip(31)
    assert await waiting == TextDelta(content="a")
    await stream.aclose()


@pytest.mark.parametrize("delay", [-1, 61, "1", math.nan, math.inf, None, [1]])
async def test_a_wrong_delay_is_named_before_anyone_asks(delay: Any) -> None:
    with pytest.raises(ConfigError, match=r"params\.delay must be seconds"):
        await echo(delay=delay).create_model()


async def test_through_the_whole_pipeline() -> None:
    answered = await House(echo()).ask(messages=[user("all the way down")], max_tokens=3)
    assert text_of(answered.events) == "all the way"
    assert answered.journey.usage == Usage(input_tokens=4, output_tokens=3)
