"""Kinds of provider come in by one door, built-ins and plugins alike."""

import sys
from types import ModuleType

import pytest

from proxy.adapter import BaseProviderAdapter
from proxy.errors import ConfigError
from proxy.registry import Registry
from proxy.testing import ScriptedAdapter
from tests.journeys import Odd


def plugin(monkeypatch: pytest.MonkeyPatch, code: str) -> str:
    module = ModuleType("a_plugin")
    exec(code, module.__dict__)
    monkeypatch.setitem(sys.modules, "a_plugin", module)
    return "a_plugin"


ECHO = """
from proxy.testing import ScriptedAdapter
def register(registry):
    registry.add_adapter("echo", ScriptedAdapter)
"""


def test_a_plugin_brings_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Registry.with_plugins([plugin(monkeypatch, ECHO)]).adapter("echo") is ScriptedAdapter


def test_built_ins_are_there_without_any() -> None:
    registry = Registry.with_plugins()
    for kind in ("openai", "openai_compatible", "local"):
        assert issubclass(registry.adapter(kind), BaseProviderAdapter)


def test_a_type_has_one_adapter() -> None:
    registry = Registry()
    registry.add_adapter("echo", ScriptedAdapter)
    registry.add_adapter("echo", ScriptedAdapter)  # a module named twice does no harm
    with pytest.raises(ConfigError, match="'echo' is registered twice"):
        registry.add_adapter("echo", Odd)
    assert registry.adapter("echo") is ScriptedAdapter, "the first one stays"


def test_an_unknown_type_is_told_what_is_known() -> None:
    registry = Registry()
    registry.add_adapter("echo", ScriptedAdapter)
    registry.add_adapter("agno", ScriptedAdapter)
    with pytest.raises(ConfigError, match="unknown provider_type 'nope'; known: agno, echo"):
        registry.adapter("nope")


def test_one_adapter_may_serve_all_others() -> None:
    registry = Registry()
    registry.add_adapter("echo", ScriptedAdapter)
    registry.serve_all_others(Odd)
    assert registry.adapter("anthropic") is Odd
    assert registry.adapter("echo") is ScriptedAdapter


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", "AttributeError"),
        ("def register(registry): 1 / 0", "ZeroDivisionError"),
        ("register = 5", "TypeError"),
    ],
)
def test_a_broken_plugin_is_named(monkeypatch: pytest.MonkeyPatch, code: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"plugin 'a_plugin' cannot be used: {said}"):
        Registry.with_plugins([plugin(monkeypatch, code)])


def test_a_plugins_own_words_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    code = 'from proxy.errors import ConfigError\ndef register(registry): raise ConfigError(["install agno"])'
    with pytest.raises(ConfigError, match=r"^install agno$"):
        Registry.with_plugins([plugin(monkeypatch, code)])


def test_a_plugin_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"plugin 'plugins.nope' cannot be used: ModuleNotFoundError"):
        Registry.with_plugins(["plugins.nope"])
