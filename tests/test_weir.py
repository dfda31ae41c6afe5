"""A whole proxy without its HTTP surface: opened, reloaded, closed."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import ConfigError
from proxy.settings import Settings
from proxy.weir import Weir, check, prepare

pytestmark = pytest.mark.anyio


def entry(provider_id: str, provider_type: str = "openai") -> str:
    return f"- {{provider_id: {provider_id}, provider_type: {provider_type}, model_name: m}}\n"


async def test_it_serves_what_its_file_names_and_nothing_after_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text("providers:\n" + entry("a") + entry("b"))
    async with Weir.open(Settings(), path) as weir:
        assert sorted(upstream.id for upstream in weir.router) == ["a", "b"]
    assert not list(weir.router), "a closed Weir still has providers"


async def test_two_live_in_one_process_without_meeting(tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text("providers:\n" + entry("a"))
    async with Weir.open(Settings(), path) as one, Weir.open(Settings()) as other:
        assert [upstream.id for upstream in one.router] == ["a"]
        assert not list(other.router), "two Weirs share providers"


async def test_a_wrong_file_stops_the_start_with_every_mistake_named(tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text("providers:\n- {provider_id: a, provider_type: openai}\n- {provider_id: b, model_name: m}\n")
    with pytest.raises(ConfigError) as caught:
        async with Weir.open(Settings(), path):
            pass
    assert [problem.split(": ")[0] for problem in caught.value.problems] == ["providers.yaml:2", "providers.yaml:3"]


async def test_a_vendor_nobody_knows_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text("providers:\n" + entry("a", "antropic"))
    with pytest.raises(ConfigError, match=r"providers.yaml:2: providers\[0\]: .*did you mean anthropic"):
        await check(path)


async def test_check_names_every_kind_of_mistake_at_once(tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text("providers:\n" + entry("a", "antropic") + "- {provider_id: b, provider_type: openai}\n")
    with pytest.raises(ConfigError) as caught:
        await check(path)
    lines = [problem.split(": ")[0] for problem in caught.value.problems]
    assert lines == ["providers.yaml:3", "providers.yaml:2"], caught.value.problems


async def test_a_reload_takes_the_new_file_or_leaves_all_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text("providers:\n" + entry("a"))
    async with Weir.open(Settings(), path) as weir:
        path.write_text("providers:\n" + entry("b"))
        await weir.reload()
        assert [upstream.id for upstream in weir.router] == ["b"]
        path.write_text("providers: nothing")
        with pytest.raises(ConfigError):
            await weir.reload()
        assert [upstream.id for upstream in weir.router] == ["b"], "a wrong file changed something"


async def test_what_the_start_would_refuse_a_reload_refuses_too(tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text("providers:\n" + entry("a"))
    async with Weir.open(Settings(), path) as weir:
        before = weir.router.get("a")
        path.write_text("providers:\n" + entry("a", "antropic"))
        with pytest.raises(ConfigError, match=r"providers.yaml:2: providers\[0\]: .*did you mean anthropic"):
            await weir.reload()
        assert weir.router.get("a") is before, "a vendor nobody knows took the place of one that works"


async def test_a_file_that_is_being_written_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`generate > providers.yaml` empties it first, and goes on for as long as it likes."""
    monkeypatch.setattr("proxy.weir.LOOK_AT_FILE", 0.02)
    path = tmp_path / "providers.yaml"
    path.write_text("providers:\n" + entry("a"))
    async with Weir.open(Settings(), path) as weir, asyncio.timeout(5):
        for _ in range(2):  # from the second time on somebody has looked
            path.write_text("")
            await asyncio.sleep(0.1)
        assert [upstream.id for upstream in weir.router] == ["a"]
        path.write_text("providers:\n" + entry("b"))
        while [upstream.id for upstream in weir.router] != ["b"]:
            await asyncio.sleep(0.01)


async def test_a_change_that_comes_during_the_start_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.weir.LOOK_AT_FILE", 0.02)
    path = tmp_path / "providers.yaml"
    path.write_text("providers:\n" + entry("a"))

    async def prepared(*_: Any) -> None:
        path.write_text("providers:\n" + entry("b"))

    with monkeypatch.context() as patch:
        patch.setattr("proxy.weir.prepare", prepared)
        opening = Weir.open(Settings(), path)
        weir = await opening.__aenter__()
    async with asyncio.timeout(5):
        while [upstream.id for upstream in weir.router] != ["b"]:
            await asyncio.sleep(0.01)
    await opening.__aexit__(None, None, None)


async def test_an_engine_that_is_not_installed_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("proxy.adapters.local.find_spec", lambda name: None)
    path = tmp_path / "providers.yaml"
    path.write_text(
        "providers:\n" + entry("a") + "- {provider_id: l, provider_type: local, model_name: SmolLM2-135M-Instruct}\n"
    )
    async with Weir.open(Settings(), path) as weir:
        assert "pip install" in caplog.text, "nobody is told what to install"
        await prepare((upstream for upstream in weir.router if upstream.id == "a"), {})


async def test_check_names_the_providers_it_found(tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text("providers:\n" + entry("a") + entry("b"))
    assert await check(path) == ["a", "b"]
