"""The seam to vendors: a new kind of provider is one small class with `stream_chat`."""

from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest

from proxy.adapter import BaseProviderAdapter, Messages, Tools
from proxy.events import Event
from proxy.provider import ProviderConfig
from proxy.testing import check_adapter, play, says, text_of

pytestmark = pytest.mark.anyio


class Parrot(BaseProviderAdapter):
    async def stream_chat(
        self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
    ) -> AsyncGenerator[Event, None]:
        for event in says(messages[-1]["content"]):
            yield event


@pytest.fixture
async def parrot() -> AsyncGenerator[Parrot, None]:
    async with aiohttp.ClientSession() as session:
        yield Parrot(ProviderConfig(provider_id="p", provider_type="parrot", model_name="m"), session)


async def test_stream_chat_is_all_a_vendor_needs(parrot: Parrot) -> None:
    await parrot.create_model()
    assert text_of(await play(parrot.stream_chat([{"role": "user", "content": "hello"}]))) == "hello"
    await parrot.close()


async def test_the_smallest_adapter_obeys_every_rule(parrot: Parrot) -> None:
    await check_adapter(parrot)


async def test_body_fields_may_have_any_name(parrot: Parrot) -> None:
    """`self` in a client's body must not collide with Python's."""
    assert await play(parrot.stream_chat([{"role": "user", "content": "x"}], None, **{"self": 1, "class": 2}))


def test_without_stream_chat_there_is_no_adapter() -> None:
    with pytest.raises(TypeError, match="stream_chat"):
        BaseProviderAdapter(None, None)  # type: ignore[abstract, arg-type]


async def test_features_are_named(parrot: Parrot) -> None:
    assert parrot.supports_feature("streaming")
    assert not parrot.supports_feature("telepathy")
