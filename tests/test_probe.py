"""One small real question."""

import pytest

from proxy.errors import ConfigError, Kind, ProviderError
from proxy.events import Finish, Start, TextDelta
from proxy.probe import probe
from proxy.testing import Played, says, scripted
from proxy.upstream import Upstream

pytestmark = pytest.mark.anyio


def upstream(script: Played) -> Upstream:
    adapter = scripted("a", script)
    return Upstream(adapter.config, adapter)


async def test_it_stops_at_the_first_token() -> None:
    asked = upstream([Start(), TextDelta(content="Hi"), ProviderError(Kind.CUT, "too far")])
    assert (await probe(asked))["ok"] is True
    assert asked.meter.tallies["total"].requests == 0, "figures are about clients' requests"


async def test_an_answer_without_a_token_is_an_answer() -> None:
    assert (await probe(upstream(says())))["ok"] is True
    assert (await probe(upstream([Start(), Finish()])))["ok"] is True


async def test_nothing_is_asked_but_a_question() -> None:
    asked = upstream(says("hi"))
    await probe(asked)
    ((messages, tools, fields),) = asked.adapter.calls  # type: ignore[attr-defined]
    assert (len(messages), tools, fields) == (1, None, {}), "a field that some vendor refuses"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ProviderError(Kind.AUTH, "wrong key"), "auth", "wrong key"),
        (RuntimeError("a secret"), "server", "RuntimeError"),
    ],
)
async def test_a_failure_is_told_without_details_of_ours(error: Exception, kind: str, message: str) -> None:
    assert await probe(upstream([error])) == {"ok": False, "kind": kind, "error": message}


async def test_a_provider_that_cannot_work_as_it_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    async def impossible() -> None:
        raise ConfigError(["install it first"])

    asked = upstream(says("hi"))
    monkeypatch.setattr(asked.adapter, "create_model", impossible)
    assert await probe(asked) == {"ok": False, "kind": "config", "error": "install it first"}
