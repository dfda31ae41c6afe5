"""One request over the shared session. What an OpenAI provider's faults are called: test_openai.py."""

from pathlib import Path

import aiohttp
import pytest

from proxy.adapters.http import ask, error_message
from proxy.errors import Kind, ProviderError
from proxy.provider import ProviderConfig
from proxy.testing import ScriptedUpstream, refuse, text

pytestmark = pytest.mark.anyio

CONFIG = ProviderConfig(provider_id="p", provider_type="anthropic", model_name="m")


@pytest.mark.parametrize("trusting", [True, False])
@pytest.mark.parametrize("headers", [{"x-api-key": "k"}, {"Authorization": "Bearer k", "Accept-Encoding": "gzip"}])
async def test_our_headers_alone_are_sent(
    headers: dict[str, str], trusting: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever ~/.netrc says of that host; and compression holds tokens back."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with ScriptedUpstream(text("a")) as upstream, aiohttp.ClientSession(trust_env=trusting) as session:
        (await ask(session, CONFIG, "POST", upstream.url, headers, b"{}")).close()
    got = upstream.requests[0].headers
    assert got.get("authorization") == headers.get("Authorization")
    assert got.get("x-api-key") == headers.get("x-api-key")
    assert got["accept-encoding"] == "identity"


async def test_nobody_answers() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ProviderError) as raised:
            await ask(session, CONFIG, "POST", refuse(), {}, b"{}")
    assert raised.value.kind is Kind.CONNECT


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"error": {"message": "no"}}', "no"),
        ('[{"error": {"message": "no"}}]', "no"),
        ('{"Message": "no"}', "no"),
        ('{"detail": {"error": "no"}}', "no"),
        ('{"error": {"code": 7}}', ""),
        ("<html>", "an HTML page"),
        (" plainly no ", "plainly no"),
    ],
)
def test_what_an_error_body_says(body: str, said: str) -> None:
    assert error_message(body) == said
