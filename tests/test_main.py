"""The command line: what it says, and its exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.__main__ import main

ROOT = Path(__file__).parent.parent
GOOD = """
providers:
  - {provider_id: one, provider_type: openai, model_name: m, api_key: k}
  - {provider_id: two, provider_type: openai_compatible, base_url: "http://127.0.0.1:1/v1", model_name: m}
"""
BAD = """
providers:
  - {provider_id: one, provider_type: openai}
  - provider_id: two
    provider_type: openai_compatible
    model_name: m
    priority: -1
    api_key: ${NO_SUCH_VARIABLE}
"""


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    env = {"PATH": os.environ["PATH"], **environment}
    command = [sys.executable, "-m", "proxy", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_help_is_worth_reading() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in ("serve", "check", "chat", "WEIR_API_KEYS", "WEIR_ADMIN_KEY", "REDIS_URL", "WEIR_DRAIN"):
        assert word in done.stdout


@pytest.mark.parametrize("command", ["serve", "check", "chat"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert "usage: python -m proxy " + command in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["check"],
        ["serve", "--port", "x"],
        ["serve", "--port", "99999"],
        ["serve", "--port", "-1"],
        ["serve", "--workers", "0"],
        ["serve", "--workers", "-2"],
        ["serve", "--speed", "9"],
    ],
)
def test_wrong_arguments_are_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    err = capsys.readouterr().err
    assert "usage: python -m proxy" in err
    assert "_" not in err.splitlines()[-1], "it tells the name of a function"


def test_a_good_file_is_said_to_be_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text(GOOD)
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 2 providers, all well formed: one, two\n"
    path.write_text("")
    assert main(["check", str(path)]) == 0


def test_a_bad_file_has_every_mistake_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text(BAD)
    assert main(["check", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(": ")[0] for line in err.splitlines()] == [
        "providers.yaml:8",
        "providers.yaml:3",
        "providers.yaml:7",
    ]


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_told(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / name)]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_check_as_a_process(tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text(BAD)
    done = run("check", str(path))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 3)


@pytest.mark.parametrize(
    ("options", "environment", "said"),
    [
        (["--host", "0.0.0.0"], {}, "refusing to listen on 0.0.0.0 without keys"),
        (["--host", "::"], {}, "refusing to listen on :: without keys"),
        (["--workers", "2"], {}, "2 workers need REDIS_URL"),
        ([], {"WEIR_STALL": "soon", "WEIR_DRAIN": "-1"}, "WEIR_DRAIN"),
        ([], {"REDIS_URL": "mysql://u:hush@host"}, "REDIS_URL"),
        ([], {"WEIR_CONFIG": "missing.yaml"}, "missing.yaml: cannot be read"),
        (["--config", "missing.yaml"], {}, "missing.yaml: cannot be read"),
    ],
)
def test_serving_is_refused_in_a_sentence(
    options: list[str],
    environment: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("proxy.server.serve", lambda *_: pytest.fail("it serves"))
    monkeypatch.setattr("proxy.logs.configure", lambda _: None)
    assert main(["serve", *options]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert "hush" not in err
    assert "listens" not in err


def test_serving_with_a_bad_file_starts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text(BAD)
    done = run("serve", "--port", "0", "--config", str(path))
    assert done.returncode == 1
    assert "providers.yaml:7: providers[1].priority" in done.stderr
    assert "listens" not in done.stderr


def test_a_port_that_is_taken_is_told() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode != 0
    assert "address already in use" in done.stderr
