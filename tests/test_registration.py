"""Providers taken into service and out of it, whoever asks."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.errors import ConfigError, RequestError
from proxy.provider import ProviderConfig
from proxy.registration import check_managed, checked, find, register, unregister
from proxy.settings import Settings
from proxy.testing import refuse
from proxy.weir import Weir

pytestmark = pytest.mark.anyio

FILE = "providers: [{provider_id: file, provider_type: openai, model_name: m, api_key: k}]"


@pytest.fixture
async def weir(tmp_path: Path) -> AsyncIterator[Weir]:
    """One provider stands in its file."""
    path = tmp_path / "providers.yaml"
    path.write_text(FILE)
    async with Weir.open(Settings(), path) as opened:
        yield opened


def config(provider_id: str = "new", **fields: str) -> ProviderConfig:
    known = {"provider_id": provider_id, "provider_type": "openai", "model_name": "m"}
    return checked({**known, **fields})


async def test_it_is_in_service_until_it_is_taken_out(weir: Weir) -> None:
    upstream, verified = await register(weir, config())
    assert verified is None
    assert find(weir, "new") is upstream
    assert upstream.managed
    await unregister(weir, "new")
    with pytest.raises(RequestError, match="registered: file") as caught:
        find(weir, "new")
    assert (caught.value.status, caught.value.code) == (404, "provider_not_found")


async def test_a_second_registration_replaces_the_first_and_forgives_its_failures(weir: Weir) -> None:
    first, _ = await register(weir, config())
    for _ in range(5):
        first.circuit.failed(first.circuit.generation, first.clock())
    assert not first.usable()
    second, _ = await register(weir, config(model_name="other"))
    assert find(weir, "new") is second
    assert second.usable(), "what was just registered is not asked"


async def test_it_is_registered_whatever_it_says_when_it_is_verified(weir: Weir) -> None:
    upstream, verified = await register(weir, config(base_url=refuse()), verify=True)
    assert verified is not None
    assert (verified["ok"], verified["kind"]) == (False, "connect")
    assert find(weir, "new") is upstream


async def test_what_stands_in_the_file_stays(weir: Weir) -> None:
    for change in (register(weir, config("file")), unregister(weir, "file")):
        with pytest.raises(RequestError, match=r"providers\.yaml") as caught:
            await change
        assert (caught.value.status, caught.value.code) == (409, "provider_read_only")
    check_managed(weir, "new")


async def test_what_can_never_work_is_not_taken(weir: Weir) -> None:
    with pytest.raises(ConfigError, match="antropic"):
        await register(weir, config(provider_type="antropic"))
    assert [upstream.id for upstream in weir.router] == ["file"]


def test_every_field_at_fault_is_named() -> None:
    with pytest.raises(RequestError) as caught:
        checked({"provider_id": "a", "priority": -1, "api_key": "sk-very-secret"})
    assert [part.split(":")[0] for part in caught.value.message.split("; ")] == [
        "provider_type",
        "model_name",
        "priority",
    ]
    assert "secret" not in caught.value.message
