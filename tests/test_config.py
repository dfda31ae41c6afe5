"""providers.yaml: what is written is read, and every mistake is named with its line."""

import contextlib
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config import Config, read_config
from proxy.errors import ConfigError

ENVIRONMENT = {"KEY": "sk-very-secret-1", "EMPTY": "", "PORT": "9100", "TRICK": "${KEY}\n- x: {"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "providers.yaml"


def read(file: Path, text: str) -> Config:
    file.write_text(dedent(text), encoding="utf-8")
    return read_config(file, ENVIRONMENT)


def problems(file: Path, text: str) -> list[str]:
    """What is wrong with it, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        read(file, text)
    for problem in caught.value.problems:
        assert problem.startswith("providers.yaml:"), f"{problem!r} does not say where"
        assert "very-secret" not in problem, "a secret is told"
    return [problem.removeprefix("providers.yaml:") for problem in caught.value.problems]


ONE = "{provider_id: a, provider_type: openai, model_name: m}"


def field(file: Path, text: str) -> Any:
    """The configuration of one provider with this more to say."""
    return read(file, f"providers:\n- {{provider_id: a, provider_type: openai, model_name: m, {text}}}\n").providers[
        "a"
    ]


# What is right.


def test_the_example_of_the_handbook(file: Path) -> None:
    config = read(
        file,
        """\
        plugins: [plugins.echo]
        defaults: {retry: {max_attempts: 5, initial: 1}, timeouts: {total: 100}}
        providers:
          - provider_id: main
            provider_type: openai_compatible
            base_url: http://127.0.0.1:${PORT}/v1
            api_key: ${KEY}
            model_name: gpt-4o-mini
            models: [fast, gpt-4o-mini]
            priority: ${PRIORITY:-2}
            timeouts: {connect: 5, first_token: 120}
            retry: {initial: 0.2}
          - {provider_id: other, provider_type: anthropic, model_name: claude}
        """,
    )
    main, other = config.providers.values()
    assert config.plugins == ["plugins.echo"]
    assert (main.provider_id, main.base_url, main.priority) == ("main", "http://127.0.0.1:9100/v1", 2)
    assert main.api_key is not None
    assert main.api_key.get_secret_value() == "sk-very-secret-1"
    assert main.models == ["fast", "gpt-4o-mini"]
    assert (main.retry.max_attempts, main.retry.initial, main.retry.maximum) == (5, 0.2, 8), "its own, defaults, ours"
    assert (main.timeouts.connect, main.timeouts.total) == (5, 100)
    assert (other.retry.initial, other.timeouts.total) == (1, 100)


def test_what_is_durable_by_default_may_say_otherwise(file: Path) -> None:
    providers = """\
providers:
  - {provider_id: a, provider_type: openai, model_name: m}
  - {provider_id: b, provider_type: openai, model_name: m, durable: false, prefill: true}
"""
    durable = read(file, providers + "defaults: {durable: true}\n").providers
    assert [(it.durable, it.prefill) for it in durable.values()] == [(True, None), (False, True)]
    assert [it.durable for it in read(file, providers).providers.values()] == [False, False]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "providers:\n", "providers: []\n", "---\n", "{}"])
def test_a_file_may_be_empty(file: Path, text: str) -> None:
    config = read(file, text)
    assert (config.plugins, config.providers) == ([], {})


def test_providers_stay_in_order(file: Path) -> None:
    names = ["zeta", "alpha", "mid"]
    lines = "".join(f"- {{provider_id: {name}, provider_type: openai, model_name: m}}\n" for name in names)
    assert list(read(file, "providers:\n" + lines).providers) == names


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("${PORT}", "9100"),
        ("x-${PORT}-${PORT}", "x-9100-9100"),
        ("${NOT_SET:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("${NOT_SET:-a b:-c}", "a b:-c"),
        ("${PORT:-default}", "9100"),
        ("costs $5 {or} $PORT", "costs $5 {or} $PORT"),
        ("${TRICK}", "${KEY}\n- x: {"),
    ],
)
def test_variables_are_put_in_once_and_as_text(file: Path, written: str, meant: str) -> None:
    assert field(file, f"params: {{x: '{written}'}}").params["x"] == meant


def test_an_optional_key_may_be_left_out(file: Path) -> None:
    assert not field(file, "api_key: '${NOT_SET:-}'").api_key


def test_plain_values_keep_their_types(file: Path) -> None:
    params = field(file, "params: {n: 1, f: .5, b: yes, z: null, l: [1, {x: 2}], v: 2024-06-01, q: '1'}").params
    assert params == {"n": 1, "f": 0.5, "b": True, "z": None, "l": [1, {"x": 2}], "v": "2024-06-01", "q": "1"}


def test_an_alias_is_what_it_stands_for(file: Path) -> None:
    both = read(
        file,
        """\
        providers:
        - {provider_id: a, provider_type: openai, model_name: m, retry: &r {max_attempts: 7}}
        - {provider_id: b, provider_type: openai, model_name: m, retry: *r}
        """,
    )
    assert [provider.retry.max_attempts for provider in both.providers.values()] == [7, 7]


# What is wrong.


def test_every_mistake_is_named_with_its_line(file: Path) -> None:
    assert problems(
        file,
        """\
        plugins: echo
        provders: []
        defaults:
          retry: {max_attempts: 0}
          timeouts: {conect: 5}
          color: red
        providers:
          - provider_id: a
            provider_type: openai_compatible
            model_name: m
          - provider_id: "not a name"
            provider_type: openai
            model_name: m
            api_key: ${MISSING}
            retry:
              initial: fast
            models: [ok, 5]
            colour: red
          - just a text
          - {provider_type: openai, model_name: m}
          - {provider_id: z, provider_type: openai, model_name: m}
          - {provider_id: z, provider_type: openai, model_name: m}
        """,
    ) == [
        "14: providers[1].api_key: the environment variable MISSING is not set, or empty",
        "2: provders: unknown key; known: plugins, defaults, providers",
        "1: plugins: must be a list of module names",
        "4: defaults.retry.max_attempts: Input should be greater than or equal to 1",
        "5: defaults.timeouts.conect: Extra inputs are not permitted",
        "6: defaults.color: must be `retry` or `timeouts`, each a mapping, or `durable`",
        "8: providers[0]: base_url is missing: where does this provider listen?",
        "11: providers[1].provider_id: String should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'",
        "17: providers[1].models[1]: Input should be a valid string",
        "16: providers[1].retry.initial: Input should be a valid number, unable to parse string as a number",
        "18: providers[1].colour: Extra inputs are not permitted",
        "19: providers[2]: must be a mapping with provider_id, provider_type and model_name",
        "20: providers[3].provider_id: Field required",
        "22: providers[5]: provider_id 'z' is used twice",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "1: must be a mapping with the key `providers`"),
        ("just a text", "1: must be a mapping with the key `providers`"),
        ("false", "1: must be a mapping with the key `providers`"),
        ("42", "1: must be a mapping with the key `providers`"),
        ("providers: {}", "1: providers: must be a list"),
        ("providers: 0", "1: providers: must be a list"),
        ("\nproviders: main", "2: providers: must be a list"),
        ("defaults: []", "1: defaults: must be a mapping with `retry`, `timeouts`, `durable`"),
        ("plugins: {}", "1: plugins: must be a list of module names"),
        ("plugins: [1]", "1: plugins: must be a list of module names"),
        ("defaults: {retry: 3}", "1: defaults.retry: must be `retry` or `timeouts`, each a mapping, or `durable`"),
        ("providers:\n- null", "2: providers[0]: must be a mapping with provider_id, provider_type and model_name"),
        (f"providers: [{ONE}]\nproviders: []", "2: providers: this key is given twice"),
        ("? [a, b]\n: c\n", "1: keys must be words"),
    ],
)
def test_a_file_of_another_shape(file: Path, text: str, expected: str) -> None:
    assert problems(file, text) == [expected]


def test_a_key_given_twice_in_a_provider(file: Path) -> None:
    text = "providers:\n- provider_id: a\n  provider_type: openai\n  model_name: m\n  model_name: n\n"
    assert problems(file, text) == ["5: providers[0].model_name: this key is given twice"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("providers: [\n", "2: not valid YAML: expected the node content, but found '<stream end>'"),
        ("a: b: c\n", "1: not valid YAML: mapping values are not allowed here"),
        ("providers:\n\t- x\n", "2: not valid YAML: found character '\\t' that cannot start any token"),
        ("x: *very-secret\n", "1: not valid YAML: found undefined alias ..."),
        ("---\na: 1\n---\nb: 2\n", "3: not valid YAML: but found another document"),
    ],
)
def test_broken_yaml(file: Path, text: str, expected: str) -> None:
    assert problems(file, text) == [expected]


@pytest.mark.parametrize("text", ["x: \x00", "[" * 50_000, "a: " * 1000, "{a: " * 3000, "- " * 20_000])
def test_hostile_yaml(file: Path, text: str) -> None:
    assert "not valid YAML" in problems(file, text)[0]


def bomb(width: int = 10, depth: int = 10) -> str:
    lines = ["a0: &a0 [" + "x, " * width + "]"]
    lines += [f"a{n}: &a{n} [" + f"*a{n - 1}, " * width + "]" for n in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [bomb(), "providers: &x [*x, *x]", "providers: &x [[[*x]]]", "a: &x {b: *x, c: *x}"],
    ids=["laughs", "list in itself", "deep list in itself", "mapping in itself"],
)
def test_an_alias_bomb_does_not_go_off(file: Path, text: str) -> None:
    said = problems(file, text)
    assert "nested too deeply, or too much of it" in said[-1]
    assert len(said) < 5, f"{len(said)} problems for one"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("api_key: '${NOT_SET}'", "the environment variable NOT_SET is not set, or empty"),
        ("api_key: '${EMPTY}'", "the environment variable EMPTY is not set, or empty"),
        ("api_key: 'very-secret${'", "a variable is written ${NAME} or ${NAME:-default}"),
        ("api_key: '${MY-very-secret}'", "a variable is written ${NAME} or ${NAME:-default}"),
        ("api_key: '${}'", "a variable is written ${NAME} or ${NAME:-default}"),
    ],
)
def test_variables_that_are_none(file: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        field(file, text)
    (problem,) = caught.value.problems
    assert problem == f"providers.yaml:2: providers[0].api_key: {expected}"


@pytest.mark.parametrize(
    "text",
    [
        "api_key: !very-secret",
        "api_key: [very-secret]",
        "api_key: {very-secret: x}",
        'api_key: "very-secret\\n"',
        "headers: {x: [very-secret]}",
        'headers: {x: "very-secret\\r\\n"}',
        "base_url: very-secret",
        "base_url: 'http://u:very-secret@h/'",
        "base_url: '${KEY}'",
        "priority: '${KEY}'",
        "drop_params: '${KEY}'",
        "retry: '${KEY}'",
        "models: '${KEY}'",
        "model_name: ['${KEY}']",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(file: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        field(file, text)
    assert "very-secret" not in str(caught.value.problems) + caught.value.message


def test_a_file_that_cannot_be_read(file: Path) -> None:
    for path in (file, file.parent):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_config(path, {})
    file.write_bytes(b"providers: \xff\xfe\n")
    with pytest.raises(ConfigError, match="cannot be read: 'utf-8' codec"):
        read_config(file, {})


words = st.sampled_from(
    ["providers", "defaults", "retry", "provider_id", "x", "${X}", "${", "1", "1.5", "yes", "~", ""]
)
trees = st.recursive(
    words, lambda tree: st.lists(tree, max_size=3) | st.dictionaries(words, tree, max_size=3), max_leaves=15
)


@settings(max_examples=100, deadline=None)
@given(trees | st.text(max_size=60))
def test_no_text_does_anything_but_be_right_or_wrong(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    file = tmp_path_factory.mktemp("any") / "providers.yaml"
    file.write_bytes(str(tree).encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigError):
        read_config(file, {})


def test_our_own_file_is_right() -> None:
    own = Path(__file__).parent.parent / "providers.yaml"
    assert read_config(own, {}).providers
