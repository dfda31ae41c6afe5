"""How long a prompt each model takes, by LiteLLM's map, without LiteLLM."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from proxy.adapters import litellm_models
from proxy.adapters.litellm_models import takes_prefill, window_of

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where another LiteLLM is installed."""
    spec = ModuleSpec("litellm", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(litellm_models, "find_spec", lambda name: spec)
    litellm_models._models.cache_clear()
    yield tmp_path
    litellm_models._models.cache_clear()


@pytest.mark.parametrize(
    ("provider_type", "model", "window"),
    [
        ("openai", "gpt-4o", 128_000),
        ("openai_compatible", "gpt-4o", 128_000),
        ("anthropic", "claude-sonnet-4-5", 200_000),
        ("ollama", "llama3", 8_192),
        ("openai", "sample_spec", None),
        ("openai", "nobody-knows-it", None),
        ("", "", None),
    ],
)
async def test_the_map_that_is_installed(provider_type: str, model: str, window: int | None) -> None:
    assert await window_of(provider_type, model) == window


async def test_the_name_at_this_type_of_provider_comes_first(installed: Path) -> None:
    (installed / litellm_models._FILE).write_text(
        '{"m": {"max_input_tokens": 1000}, "groq/m": {"max_input_tokens": 500, "mode": "chat"}, "no": {"mode": "chat"},'
        ' "zero": {"max_input_tokens": 0}, "text": {"max_input_tokens": "as many as you like"}}'
    )
    assert await window_of("groq", "m") == 500
    assert await window_of("openai", "m") == 1000
    for odd in ("no", "zero", "text"):
        assert await window_of("openai", odd) is None


@pytest.mark.parametrize(
    ("provider_type", "model", "takes"),
    [
        ("anthropic", "claude-sonnet-4-5", True),
        ("openai", "gpt-4o", False),
        ("openai", "nobody-knows-it", False),
    ],
)
async def test_who_goes_on_with_what_was_begun(provider_type: str, model: str, takes: bool) -> None:
    assert await takes_prefill(provider_type, model) is takes


async def test_without_a_map_nobody_knows(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await window_of("openai", "gpt-4o") is None
    litellm_models._models.cache_clear()
    monkeypatch.setattr(litellm_models, "find_spec", lambda name: None)
    assert await window_of("openai", "gpt-4o") is None


def test_litellm_is_not_imported_for_it() -> None:
    code = (
        "import asyncio, sys; from proxy.adapters.litellm_models import window_of;"
        "print(asyncio.run(window_of('openai', 'gpt-4o')), 'litellm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["128000", "False"]
