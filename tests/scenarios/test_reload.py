"""providers.yaml changes while Weir runs: taken up without dropping a stream, or refused with everything as it was."""

import asyncio
import shutil
import signal
from pathlib import Path

import aiohttp
import pytest

from proxy.testing import ScriptedUpstream, begun, chunk, sse, text
from tests.process import call, chat, provider, until, weir

pytestmark = pytest.mark.anyio


def config(url: str, *ids: str) -> str:
    lines = [
        f"- {{provider_id: {id}, provider_type: openai_compatible, model_name: m, base_url: '{url}'}}" for id in ids
    ]
    return "providers:\n" + "\n".join(lines)


async def names(url: str) -> list[str]:
    _, body = await call(f"{url}/providers")
    return sorted(entry["provider_id"] for entry in body["providers"])


@pytest.mark.parametrize("how", ["the file alone", "SIGHUP"])
async def test_a_change_is_taken_up_and_no_stream_notices(tmp_path: Path, how: str) -> None:
    gate = asyncio.Event()
    script = [*begun("la "), gate, sse(chunk({"content": "end"})), sse(chunk(finish="stop")), sse("[DONE]")]
    async with (
        ScriptedUpstream(script, text("new")) as upstream,
        weir(tmp_path, config(upstream.url, "main", "gone")) as served,
        aiohttp.ClientSession() as session,
    ):
        path = next(tmp_path.glob("*.yaml"))
        stream = await session.post(f"{served.url}/v1/chat/completions", json=chat(model="gone", stream=True))
        await stream.content.readline()
        path.write_text(config(upstream.url, "main", "new"))
        if how == "SIGHUP":
            served.signal(signal.SIGHUP)
        await until(lambda: _holds(served.url, ["main", "new"]), "the new file was not taken up")
        gate.set()
        assert (await stream.text()).endswith("data: [DONE]\n\n"), "the stream of a removed provider was dropped"


async def test_a_config_map_that_is_swapped_is_taken_up(tmp_path: Path) -> None:
    """Kubernetes makes a new folder, turns the link `..data` to it, and removes the old one."""
    async with ScriptedUpstream(text("hi")) as upstream:
        folder = tmp_path / "config"
        for name, provider_id in (("..1", "main"), ("..2", "new")):
            (folder / name).mkdir(parents=True)
            (folder / name / "providers.yaml").write_text(config(upstream.url, provider_id))
        (folder / "..data").symlink_to("..1")
        (folder / "providers.yaml").symlink_to("..data/providers.yaml")
        async with weir(tmp_path, str(folder / "providers.yaml")) as served:
            (folder / "..tmp").symlink_to("..2")
            (folder / "..tmp").rename(folder / "..data")
            shutil.rmtree(folder / "..1")
            await until(lambda: _holds(served.url, ["new"]), "the new file was not taken up")


async def test_a_wrong_file_changes_nothing_and_says_why(tmp_path: Path) -> None:
    async with ScriptedUpstream(text("hi")) as upstream, weir(tmp_path, config(upstream.url, "main")) as served:
        path = next(tmp_path.glob("*.yaml"))
        path.write_text("providers:\n- {provider_id: main, provider_type: openai, model_name: 7, priority: often}\n")
        served.signal(signal.SIGHUP)
        await until(lambda: "priority" in served.log, "the mistake was not named")
        assert f"{path.name}:2" in served.log, "the line was not named"
        assert (await call(f"{served.url}/v1/chat/completions", chat()))[0] == 200


async def test_sighup_before_the_file_was_read_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\ndef register(_): ...\n")
    async with weir(tmp_path, "plugins: [told]") as served:
        assert (await call(f"{served.url}/health/live"))[0] == 200


async def test_what_stands_in_the_file_is_read_only_over_rest(tmp_path: Path) -> None:
    async with ScriptedUpstream(text("hi")) as upstream, weir(tmp_path, config(upstream.url, "main")) as served:
        for method, url in (("POST", "/providers"), ("PATCH", "/providers/main"), ("DELETE", "/providers/main")):
            status, body = await call(served.url + url, provider(upstream.url), method)
            assert status == 409, f"{method} {url}: {body}"
            assert "providers.yaml" in body["error"]["message"]


async def _holds(url: str, expected: list[str]) -> bool:
    return await names(url) == expected
