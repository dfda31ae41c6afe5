"""Processes that are measured: started, ended, and what they cost, read from /proc with all their children."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROC = Path("/proc")


@contextmanager
def running(command: list[str], **environment: str) -> Iterator[int]:
    """The id of a process that runs `command` while the block does."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()


def cpu(pid: int) -> float:
    """Seconds of CPU that a process and its children have used: the scheduler's own count, in nanoseconds.

    (The ticks of /proc/PID/stat are 10 ms, which is more than nginx needs for a round.)
    """
    return sum(int(text.split()[0]) for each in tree(pid) for text in _of_threads(each, "schedstat")) / 1e9


def memory(pid: int) -> int:
    """Bytes of memory that a process and its children have in use now."""
    return sum(int(text.split()[1]) for each in tree(pid) for text in _read(each, "statm")) * os.sysconf("SC_PAGE_SIZE")


def tree(pid: int) -> set[int]:
    parents = {int(it.name): stat for it in PROC.iterdir() if it.name.isdigit() for stat in _read(int(it.name), "stat")}
    found, before = {pid}, 0
    while len(found) > before:
        before = len(found)
        found |= {each for each, stat in parents.items() if int(stat.rpartition(")")[2].split()[1]) in found}
    return found


def _of_threads(pid: int, name: str) -> Iterator[str]:
    for thread in (PROC / str(pid) / "task").glob("*"):
        yield from _read(pid, f"task/{thread.name}/{name}")


def _read(pid: int, name: str) -> list[str]:
    """The one text; none if the process is gone."""
    try:
        return [(PROC / str(pid) / name).read_text()]
    except OSError:
        return []
