"""What the bench installs beside Weir."""

import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
LOCKS = sorted(REQUIREMENTS.glob("*.lock"))


def litellm_in(lock: str) -> list[str]:
    return re.findall(r"^litellm==(\S+)", (REQUIREMENTS / lock).read_text(), re.MULTILINE)


def test_litellms_proxy_is_of_the_version_that_translates_for_weir() -> None:
    assert litellm_in("bench-litellm.lock") == litellm_in("run.lock") != []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_lock_pins_by_hash_and_names_no_place(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    pins = re.findall(r"^[a-z0-9][^\n]*?==[^\n]*\\$\n    --hash=sha256:", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[^\s#]", text, re.MULTILINE)) > 0
