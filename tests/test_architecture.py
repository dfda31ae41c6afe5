"""The floor plan holds: who may import whom, how large a room may grow, and that every room has its test."""

import ast
import re
from pathlib import Path

import pytest

import proxy

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "proxy").rglob("*.py"))

# Imports point up this list only: a module may import from its own line and the lines above it.
LAYERS = [
    "errors events sse retry_after logs terminal deadline tasks connection chunk bucket websocket watchdog "
    "position heading",
    "tally circuit provider",
    "request settings config adapter journey merge generator monitor streaming_request session record recorder",
    "registry",
    "adapters modes state upstream",
    "pipeline.call pipeline.routing pipeline.stream pipeline.thoughts pipeline.shaping",
    "pipeline.failover pipeline.said",
    "pipeline.source",
    "pipeline.memory",
    "pipeline fleet mode_count sockets",
    "durable",
    "weir",
    "wire probe",
    "registration report reading embedding",
    "api",
    "app",
    "server testing",
    "__main__",
]
# In one layer, but strangers to each other.
APART = [("adapters", "state"), ("adapters", "modes"), ("modes", "state")]
ONLY_IN = {
    "litellm": "proxy/adapters/litellm",
    "redis": "proxy/state/",
    "fakeredis": "proxy/state/",
    "fastapi": "proxy/a",
}
FORBIDDEN_NAMES = re.compile(r"(Manager|Service|Handler|Helper|Util)s?$")


def layer_of(module: str) -> int:
    """That of the module itself, where it has one of its own; else that of the room it is in."""
    parts = module.split(".")[1:] or ["__init__"]
    named = {room: number for number, rooms in enumerate(LAYERS) for room in rooms.split()}
    return named.get(".".join(parts[:2]), named.get(parts[0], -1))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Every module that `path` imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_point_up(path: Path) -> None:
    module = module_of(path)
    if module == "proxy":
        return
    layer = layer_of(module)
    assert layer >= 0, f"{module} is in no layer: give it a place in LAYERS"
    room = module.split(".")[1]
    for name in imports_of(path):
        if not name.startswith("proxy."):
            continue
        other = name.split(".")[1]
        assert layer_of(name) <= layer, f"{module} imports {name}, which lies below it"
        assert not any({room, other} == set(pair) for pair in APART), f"{module} and {name} are to be strangers"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_the_seams_hold(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    for name in imports_of(path):
        where = ONLY_IN.get(name.split(".")[0])
        if name.split(".")[0] == "fastapi" and place == "proxy/server.py":
            continue
        assert where is None or place.startswith(where), f"{place} imports {name}, which belongs to {where}*"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_rooms_are_small_and_well_named(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300, f"{path.name} has grown over 300 lines: is it one thing?"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno
            assert length <= 60, f"{path.name}: {node.name} does not fit a screen ({length} lines)"
        if isinstance(node, ast.ClassDef):
            assert not FORBIDDEN_NAMES.search(node.name), f"{path.name}: {node.name} says nothing; name the thing"
        assert not isinstance(node, ast.Global), f"{path.name} uses `global`"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_every_module_has_its_test(path: Path) -> None:
    place = path.relative_to(ROOT / "proxy")
    if place.name == "__init__.py":
        return
    name = "test_main.py" if place.name == "__main__.py" else f"test_{place.name}"
    parts = (place.parent / name, place.parent / f"{name.split('_')[0]}_{name.split('_')[1].removesuffix('.py')}.py")
    assert any((ROOT / "tests" / part).exists() for part in parts), f"proxy/{place} has no tests/{parts[0]}"


def test_importing_weir_is_cheap() -> None:
    """LiteLLM takes seconds and 160 MB: nothing may import it by the way (see proxy/adapters/litellm.py)."""
    import subprocess
    import sys

    code = "import sys, proxy.server; print([m for m in sys.modules if m in ('litellm', 'openai', 'boto3')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", f"importing proxy.server imports {done.stdout}"


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").glob("*.py")), ids=lambda path: path.stem)
def test_plugins_use_public_names_alone(path: Path) -> None:
    """Ours are examples: what they need, everybody may use."""
    free = ("proxy.testing", "proxy.tasks", "proxy.retry_after")  # besides the names of proxy/__init__.py
    for node in ast.walk(ast.parse(path.read_text())):
        module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        if isinstance(node, ast.ImportFrom) and module.split(".")[0] == "proxy" and module not in free:
            strange = {alias.name for alias in node.names} - set(proxy.__all__)
            assert not strange, f"{path.name} uses {strange}, which are no public names"
