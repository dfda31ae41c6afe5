"""A real redis-server on a free loopback port, for tests that need one; it can hang, die, and come back."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import pytest

PROGRAM = shutil.which("redis-server")


def require_redis() -> None:
    """Skips the test where no redis-server is installed, so that it shows; under CI it fails instead."""
    if PROGRAM is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "redis-server is not installed: apt install redis-server"
        )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class RedisServer:
    """A context manager. `options` are directives of redis.conf: `RedisServer(requirepass="x", maxmemory="1mb")`."""

    def __init__(self, **options: str):
        self.port = free_port()
        self._options = {"bind": "127.0.0.1", "save": "", "appendonly": "yes", "appendfsync": "always", **options}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        password = self._options.get("requirepass")
        return f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        require_redis()
        self._directory = tempfile.TemporaryDirectory(prefix="weir-redis-")
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._directory.cleanup()

    def start(self, *, empty: bool = False) -> None:
        """Starts it (again), on the same port, with what it held when it was killed or `empty`; returns once it serves.

        What it held is on its disk: every write is there before it is answered.
        """
        if empty:
            shutil.rmtree(Path(self._directory.name, "appendonlydir"), ignore_errors=True)
        options = {"port": str(self.port), "dir": self._directory.name, **self._options}
        arguments = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
        assert PROGRAM
        with open(Path(self._directory.name, "log"), "ab") as log:
            self._process = subprocess.Popen([PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._await_answer()

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It hangs: connections are accepted by the kernel, and nothing is answered."""
        self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + 5
        stat = Path(f"/proc/{self._process.pid if self._process else 0}/stat")
        while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < deadline, "redis-server does not stop"

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def command(self, *words: str) -> str:
        """The raw reply to one command, past every client library."""
        request = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            if password := self._options.get("requirepass"):
                connection.sendall(f"AUTH {password}\r\n".encode())
                connection.recv(100)
            connection.sendall(request.encode())
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def calls(self) -> dict[str, int]:
        """How often each command was called so far, in lower case."""
        lines = [line for line in self.command("INFO", "commandstats").splitlines() if line.startswith("cmdstat_")]
        pairs = [line.removeprefix("cmdstat_").split(":calls=") for line in lines]
        return {name: int(rest.partition(",")[0]) for name, rest in pairs if name != "info"}

    def _signal(self, number: int) -> None:
        assert self._process
        self._process.send_signal(number)

    def _await_answer(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                if self.command("PING").startswith("+PONG"):
                    return
            except OSError:
                pass
            assert self._process
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("redis-server does not start:\n" + Path(self._directory.name, "log").read_text())
            time.sleep(0.01)
