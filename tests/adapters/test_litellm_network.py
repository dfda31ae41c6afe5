"""The way to LiteLLM's vendors: the operator's proxy and CA, and one set of connections."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vendors.anthropic import FakeAnthropic
from tests.vendors.azure import FakeAzure
from tests.vendors.forward_proxy import ForwardProxy
from tests.vendors.world import CONFIGS, FAKES, HI, World, play, text_of

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]

# The way to the vendor


@pytest.mark.parametrize("name", FAKES)
async def test_connections_are_the_sessions_and_used_again(world: World, name: str) -> None:
    """So there is nothing for an adapter to close, and nothing that LiteLLM leaves open."""
    for _ in range(3):
        await play((await world.adapter(name)).stream_chat(HI))
    ports = {request.port for request in world.vendors[name].requests}
    assert len(ports) == 1, f"three questions came on {len(ports)} connections"


async def test_a_forward_proxy_is_used_and_no_proxy_goes_past_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = await world.adapter("anthropic")
    address = f"127.0.0.1:{world.vendors['anthropic'].port}"
    async with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "elsewhere.example")
        assert text_of(await play(adapter.stream_chat(HI))) == "Hello"
        assert proxy.asked == [f"POST {address}"]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert text_of(await play(adapter.stream_chat(HI))) == "Hello"
        assert len(proxy.asked) == 1, "NO_PROXY names this host"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A CA of its own, as companies have it: its certificate, and a server's TLS context."""
    folder = tmp_path_factory.mktemp("authority")
    key, certificate = folder / "key.pem", folder / "ca.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return certificate, context


async def test_a_companys_proxy_and_ca_are_all_it_takes(authority: tuple[Path, ssl.SSLContext]) -> None:
    """Also: the vendors are the only ones asked. LiteLLM would fetch its cost map by the same proxy."""
    certificate, tls = authority
    async with FakeAnthropic(tls) as anthropic, FakeAzure(tls) as azure, ForwardProxy() as proxy:
        configs = [
            {"provider_id": name, "provider_type": name, "base_url": vendor.url("text"), **CONFIGS[name]}
            for name, vendor in (("anthropic", anthropic), ("azure", azure))
        ]
        surroundings = {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(certificate), "PYTHONPATH": str(ROOT)}
        script = ROOT / "tests/vendors/behind_a_proxy.py"
        run = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", str(script), *map(json.dumps, configs)),
            env={"PATH": os.environ["PATH"], **surroundings},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            said, complaints = await run.communicate()
    assert said.decode() == "Hello\nHello\n", complaints.decode()[-2000:]
    assert not complaints, f"nobody asked for this on stderr: {complaints.decode()}"
    assert proxy.asked == [f"CONNECT localhost:{vendor.port}" for vendor in (anthropic, azure)]
