"""providers.yaml: read, checked, and every mistake named with its line."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from proxy.errors import ConfigError
from proxy.provider import ProviderConfig, mistakes

_VARIABLE = re.compile(r"\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
_QUOTED = re.compile(r"'[^'\s]{3,}'")  # in the parser's words: a piece of the file, which may be a secret
_TEXT = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp")  # 2024-06-01 is the version of some vendor's API
_KEYS = ("plugins", "defaults", "providers")
_MAX_DEPTH = 50
_MAX_VALUES = 100_000
_Path = tuple[str | int, ...]
_Kind = TypeVar("_Kind", list[Any], dict[str, Any])


class Config:
    """What a providers.yaml says. `providers` is by id, in the file's order, and `places` says where each stands.

    `problems` are the mistakes in the rest.
    """

    def __init__(self, plugins: list[str], providers: dict[str, ProviderConfig]):
        self.plugins = plugins
        self.providers = providers
        self.places: dict[str, str] = {}
        self.problems: list[str] = []


def read_config(path: Path, environment: Mapping[str, str]) -> Config:
    """Reads a file without mistakes. Raises ConfigError."""
    config = examine(path, environment)
    if config.problems:
        raise ConfigError(config.problems)
    return config


def examine(path: Path, environment: Mapping[str, str]) -> Config:
    """Reads what can be read of a file; `${NAME}` and `${NAME:-default}` come from `environment`.

    Raises ConfigError if nothing can.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from None
    reader = _Reader(path.name, environment)
    config = reader.read(text)
    config.problems = reader.problems
    return config


class _Reader:
    """Collects `problems` rather than stopping at the first; `_lines` remembers where each value stands."""

    def __init__(self, name: str, environment: Mapping[str, str]):
        self.problems: list[str] = []
        self._name = name
        self._environment = environment
        self._lines: dict[_Path, int] = {}
        self._values = 0

    def read(self, text: str) -> Config:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{self._name}:{mark.line + 1}" if mark else self._name
            what = _QUOTED.sub("...", getattr(error, "problem", None) or str(error))
            raise ConfigError([f"{where}: not valid YAML: {what}"]) from None
        data = self._value(root, ()) if root is not None else None
        if data is None:
            data = {}
        if not isinstance(data, dict):
            self._report((), "must be a mapping with the key `providers`")
            data = {}
        return self._config(data)

    def _config(self, data: dict[str, Any]) -> Config:
        for key in data:
            if key not in _KEYS:
                self._report((key,), f"unknown key; known: {', '.join(_KEYS)}")
        plugins = self._section(data, "plugins", list, "a list of module names")
        if not all(isinstance(name, str) for name in plugins):
            self._report(("plugins",), "must be a list of module names")
        defaults = self._defaults(
            self._section(data, "defaults", dict, "a mapping with `retry`, `timeouts`, `durable`")
        )
        entries = self._section(data, "providers", list, "a list")
        config = Config(plugins, {})
        for number, entry in enumerate(entries):
            if provider := self._provider(("providers", number), entry, defaults):
                if provider.provider_id in config.providers:
                    self._report(("providers", number), f"provider_id {provider.provider_id!r} is used twice")
                config.providers[provider.provider_id] = provider
                config.places[provider.provider_id] = self._place(("providers", number))
        return config

    def _section(self, data: dict[str, Any], key: str, kind: type[_Kind], what: str) -> _Kind:
        """The value of `key`, empty if there is none."""
        value = data.get(key)
        if value is not None and not isinstance(value, kind):
            self._report((key,), f"must be {what}")
        return value if isinstance(value, kind) else kind()

    def _defaults(self, defaults: dict[str, Any]) -> dict[str, Any]:
        good = {}
        for key, value in defaults.items():
            if key not in ("retry", "timeouts", "durable") or (key != "durable" and not isinstance(value, dict)):
                self._report(("defaults", key), "must be `retry` or `timeouts`, each a mapping, or `durable`")
            elif self._check(("defaults",), {"provider_id": "x", "provider_type": "x", "model_name": "x", key: value}):
                good[key] = value
        return good

    def _provider(self, path: _Path, entry: Any, defaults: dict[str, Any]) -> ProviderConfig | None:
        if not isinstance(entry, dict):
            self._report(path, "must be a mapping with provider_id, provider_type and model_name")
            return None
        merged = dict(entry)
        for key, value in defaults.items():
            if not isinstance(value, dict):
                merged.setdefault(key, value)
            elif isinstance(entry.get(key, {}), dict):
                merged[key] = {**value, **entry.get(key, {})}
        return self._check(path, merged)

    def _check(self, path: _Path, entry: dict[str, Any]) -> ProviderConfig | None:
        try:
            return ProviderConfig(**entry)
        except ValidationError as error:
            for where, what in mistakes(error):
                self._report((*path, *where), what)
        return None

    def _value(self, node: yaml.Node, path: _Path, key: yaml.Node | None = None) -> Any:
        """The node as plain data, each value's line (its key's, if it has one) remembered, and variables put in."""
        self._lines[path] = (key or node).start_mark.line + 1
        self._values += 1
        if len(path) > _MAX_DEPTH or self._values > _MAX_VALUES:
            self._report(path[:3], "nested too deeply, or too much of it (an alias that holds itself?)")
            raise ConfigError(self.problems)
        if isinstance(node, yaml.MappingNode):
            data: dict[Any, Any] = {}
            for key_node, value_node in node.value:
                name = key_node.value
                if not isinstance(name, str):
                    self._report(path, "keys must be words")
                    continue
                twice = name in data
                data[name] = self._value(value_node, (*path, name), key_node)
                if twice:
                    self._report((*path, name), "this key is given twice")
            return data
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, number)) for number, item in enumerate(node.value)]
        if node.tag in _TEXT:
            return _VARIABLE.sub(lambda match: self._variable(match, path), str(node.value))
        return self._scalar(node, path)

    def _scalar(self, node: yaml.Node, path: _Path) -> Any:
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError):  # their texts may hold a piece of a secret
            self._report(path, "cannot be read; a text that YAML takes for something else needs quotes")
            return None

    def _variable(self, match: re.Match[str], path: _Path) -> str:
        name, default = match.groups()
        if name is None:
            self._report(path, "a variable is written ${NAME} or ${NAME:-default}")
        elif not (value := self._environment.get(name) or default or "") and default is None:
            self._report(path, f"the environment variable {name} is not set, or empty")
        else:
            return value
        return ""

    def _report(self, path: _Path, problem: str) -> None:
        self.problems.append(f"{self._place(path)}: {problem}")

    def _place(self, path: _Path) -> str:
        known = path
        while known and known not in self._lines:
            known = known[:-1]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        return f"{self._name}:{self._lines.get(known, 1)}" + (f": {where}" if where else "")
