"""Takes away each protection of a durable stream in turn, and demands that the test that is there for it fails.

`make sabotage`. A test that passes all the same would protect nothing.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
TESTS = "tests/durable/test_protections.py"
AT_ONCE = 2


class Sabotage(NamedTuple):
    """`changes` are (file, what stands there once, what is to stand there); then `test` says `complaint`."""

    what: str
    changes: Sequence[tuple[str, str, str]]
    test: str
    complaint: str


SABOTAGES = [
    Sabotage(
        "the epoch: an adopter writes on in the old one",
        [
            (
                "proxy/state/orphans.py",
                "            pipe.xadd(logs.log(stream_id), fields, id=str(place), nomkstream=True)\n",
                "",
            ),
            ("proxy/state/orphans.py", "return Adopted(last.place.epoch + 1,", "return Adopted(last.place.epoch,"),
        ],
        "test_redis_refuses_a_producer_whose_stream_was_taken_over",
        "two replicas write to one log",
    ),
    Sabotage(
        "NOMKSTREAM: an append may make a log",
        [("proxy/state/stream_log.py", '"NOMKSTREAM", id', "id")],
        "test_a_log_that_is_gone_does_not_come_back",
        "half a log was made",
    ),
    Sabotage(
        "the acknowledgement before the send",
        [
            (
                "proxy/durable/writer.py",
                "        outcomes = await self._logs.append([batch for _, batch in flying])\n",
                "        outcomes = [Outcome.LANDED] * len(flying)\n"
                "        self.sent = asyncio.create_task(self._logs.append([batch for _, batch in flying]))\n",
            )
        ],
        "test_nothing_is_shown_before_redis_has_acknowledged_it",
        "nobody knows whether it is in the log",
    ),
    Sabotage(
        "the gap check",
        [("proxy/durable/reader.py", "or entry.events[0].seq != seq + 1", "")],
        "test_a_log_that_lacks_an_entry_is_not_read_as_if_it_did_not",
        "DID NOT RAISE",
    ),
    Sabotage(
        "the nonce of an epoch",
        [("proxy/durable/reader.py", "and place != self.after._replace(part=0)", "and not place")],
        "test_a_position_of_an_epoch_that_redis_forgot_is_refused",
        "DID NOT RAISE",
    ),
    Sabotage(
        "WATCH in an adoption",
        [("proxy/state/orphans.py", "await pipe.watch(logs.log(stream_id))", "pass")],
        "test_an_adopter_looks_again_where_the_producer_wrote_meanwhile",
        "it goes on from a position that is not the last",
    ),
]


def main() -> int:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        untouched, *found = pool.map(_try, [Sabotage("nothing", [], "", ""), *SABOTAGES])
    if untouched:
        print(f"the tests fail though nothing was taken away:\n{untouched}")
        return 1
    for sabotage, problem in zip(SABOTAGES, found, strict=True):
        print(
            f"{'NOT NOTICED' if problem else 'noticed'}: without {sabotage.what} ({sabotage.test})\n{problem}", end=""
        )
    return int(any(found))


def _try(sabotage: Sabotage) -> str:
    """What is wrong: the test does not notice it. Empty if all is well."""
    with tempfile.TemporaryDirectory(prefix="weir-sabotage-") as folder:
        copy = Path(folder)
        for name in ("proxy", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for name, there, instead in sabotage.changes:
            text = (copy / name).read_text()
            if text.count(there) != 1:
                return f"{name} has {there!r} {text.count(there)} times: this sabotage is out of date\n"
            (copy / name).write_text(text.replace(there, instead))
        test = f"{TESTS}::{sabotage.test}" if sabotage.test else TESTS
        done = subprocess.run([sys.executable, "-m", "pytest", test], cwd=copy, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if not sabotage.changes:
        return said if done.returncode else ""
    return "" if done.returncode == 1 and sabotage.complaint in _failures(said) else f"{said}\n"


def _failures(said: str) -> str:
    """The lines on which pytest says what went wrong, without the sources it shows."""
    return "\n".join(line for line in said.splitlines() if line.startswith("E "))


if __name__ == "__main__":
    sys.exit(main())
