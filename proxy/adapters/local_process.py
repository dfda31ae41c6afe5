"""The child process of provider type `local`, seen from Weir: started when first used, and again when it died."""

import asyncio
import functools
import json
import logging
import os
import re
import secrets
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from proxy.errors import Kind, ProviderError

PROGRAM = str(Path(__file__).with_name("local_engine.py"))
LONGEST_START = 300.0  # seconds; a large file on a slow disk
LONGEST_END = 2.0
LONGEST_SILENCE = 120.0  # seconds of a loop that does not turn; it does so at least once for each 64 tokens of a prompt
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # between a death and the next start; doubled each time
STEADY = 60.0  # an engine that lived this long was not at fault

Endpoint = tuple[str, dict[str, str]]

log = logging.getLogger(__name__)


class Engine:
    """Keeps one engine running, for as long as it is used and no more often than is sensible.

    `plan` is what `local_engine.py` reads, but for its patience, and the key, which is new with every start. `clock` is
    in seconds.
    """

    def __init__(self, plan: dict[str, Any], clock: Callable[[], float]):
        self._plan = plan
        self._clock = clock
        self._life: asyncio.Task[None] | None = None
        self._serving: asyncio.Future[Endpoint | None]
        self._pause = FIRST_PAUSE
        self._not_before = clock()
        self._why = ""
        self._closed = False

    async def endpoint(self) -> Endpoint:
        """Where the engine listens, and the headers that let us in. Starts it if need be.

        Raises ProviderError (connect) if it does not start, and at once if it died too short a while ago.
        """
        if self._life is None or self._life.done():
            if self._closed or self._clock() < self._not_before:
                raise self._refusal()
            self._serving = asyncio.get_running_loop().create_future()
            self._life = asyncio.create_task(self._live(self._serving))
            self._life.add_done_callback(functools.partial(_tell, self._serving))
        # The start goes on when those who asked for it leave: a large model must not depend on a patient client.
        endpoint = await asyncio.shield(self._serving)
        if endpoint is None:
            raise self._refusal()
        return endpoint

    def served(self) -> None:
        """A stream came to its end: should the engine die now, it is started again soon."""
        self._pause = FIRST_PAUSE

    async def close(self) -> None:
        """Ends the child; when this returns it is gone."""
        self._closed = True
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait([self._life])

    async def _live(self, serving: asyncio.Future[Endpoint | None]) -> None:
        born, key = self._clock(), secrets.token_urlsafe(32)
        try:
            async with _child() as child:
                address = await _address(child, {**self._plan, "key": key, "patience": LONGEST_SILENCE})
                # A connection a request: each one that is kept alive would hold one of the engine's threads.
                headers = {"authorization": f"Bearer {key}", "connection": "close"}
                serving.set_result((f"{address}/v1/chat/completions", headers))
                self._why = f"the engine died ({_last_words(await child.wait())})"
        except OSError as error:
            # The directory of a model is nobody's business but the operator's.
            said = str(error).replace(os.path.dirname(self._plan["path"]) + os.sep, "")
            self._why = f"the engine did not start: {said or f'silent for {LONGEST_START:g} s'}"
        self._ended(born)

    def _ended(self, born: float) -> None:
        now = self._clock()
        if now - born >= STEADY:
            self._pause = FIRST_PAUSE
        self._not_before = now + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        log.warning("%s: %s", self._plan["name"], self._why)

    def _refusal(self) -> ProviderError:
        if self._closed:
            return ProviderError(Kind.CONNECT, "the engine was shut down")
        wait = max(0.0, self._not_before - self._clock())
        return ProviderError(Kind.CONNECT, f"{self._why}; it restarts in {wait:.1f} s", retry_after=wait)


@asynccontextmanager
async def _child() -> AsyncGenerator[Process, None]:
    """A child that is gone afterwards. Its own session keeps a terminal's Ctrl-C from it: Weir decides when it ends."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", PROGRAM, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    assert child.stdin is not None
    try:
        yield child
    finally:
        child.stdin.close()  # which ends it
        try:
            async with asyncio.timeout(LONGEST_END):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()


async def _address(child: Process, plan: dict[str, Any]) -> str:
    """Waits until the child serves. Raises ChildProcessError, with the last it said, if it does not."""
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdin.write(json.dumps(plan).encode() + b"\n")
    said = b""
    async with asyncio.timeout(LONGEST_START):
        while data := await child.stderr.read(65536):  # the child shuts it when it serves
            said = (said + data)[-2048:]
        address = await child.stdout.read()
    if not address:
        lines = [re.sub(r"^[\d.]+ ", "", line) for line in said.decode(errors="replace").splitlines()[-20:]]
        raise ChildProcessError("\n".join(lines) or _last_words(await child.wait()))
    return address.decode()


def _tell(serving: asyncio.Future[Endpoint | None], _: object) -> None:
    """Nobody waits for an engine that ended before it served, not even if it was stopped before it began."""
    if not serving.done():
        serving.set_result(None)


def _last_words(status: int) -> str:
    if status == -signal.SIGALRM:
        return f"it was stuck for {LONGEST_SILENCE:g} s"
    return f"signal {-status}" if status < 0 else f"exit status {status}"
