"""Controls for streams that another replica holds: carried to it over Redis, and its answer brought back.

Each replica listens on one channel of its own, for controls and for answers to those it sent; a nonce tells whose
answer it is. A published message may be lost, so every answer is waited for, for a time, and what was lost is said.
"""

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from redis.exceptions import RedisError

from proxy.errors import Stopped, StoreAway, WeirError
from proxy.state.store import PATIENCE, Store
from proxy.tasks import end, keep

log = logging.getLogger(__name__)

QUIET = 1.0  # seconds without a message after which this replica looks whether it can still be reached
LONGEST_PAUSE = 1.0  # seconds between two attempts to listen again

Message = dict[str, Any]
_WHAT = "a control for a stream on another replica"


class _Control(msgspec.Struct, tag="control"):
    nonce: str
    sender: str
    patience: float
    message: Message


class _Answer(msgspec.Struct, tag="answer"):
    nonce: str
    answer: Message


class _Failure(msgspec.Struct, tag="failure", omit_defaults=True):
    nonce: str
    message: str
    status: int
    code: str
    param: str | None = None


_decoder = msgspec.json.Decoder(_Control | _Answer | _Failure)


class ControlBus:
    """`act` performs a control on a stream of this `replica`, and returns what is to be answered.

    With an embedded store there are no other replicas: nothing is subscribed to, and nobody else is found.
    """

    def __init__(self, store: Store, replica: str, act: Callable[[Message], Awaitable[Message]]):
        self.replica = replica
        self._store = store
        self._act = act
        self._one_by_one = asyncio.Lock()  # a burst of messages must not open a connection for each
        self._listening = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[Message | WeirError]] = {}
        self._acting: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to listen. Where Redis is away, that comes later by itself."""
        if self._store.embedded:
            return
        self._task = asyncio.create_task(self._run(), name="controls")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._listening.wait()

    async def close(self) -> None:
        """Stops listening; what is being performed for others is broken off, and who waits here is told."""
        await end(*([self._task] if self._task else []), *self._acting)
        self._listening.clear()
        self._give_up(lambda: Stopped("this replica shuts down"))

    async def send(self, replica: str, message: Message, patience: float) -> Message | None:
        """What `replica` answers to `message`, which must be JSON; None at once if there is no such replica.

        Raises TimeoutError after `patience` seconds, StoreAway, and a WeirError where `act` raised one there: with its
        message, status, code and param, but not its class.
        """
        if replica == self.replica:
            async with asyncio.timeout(patience):
                return await self._act(message)
        if self._store.embedded:
            return None
        if not self._listening.is_set():  # the answer would not find us
            raise StoreAway(_WHAT)
        nonce = secrets.token_hex(8)
        future: asyncio.Future[Message | WeirError] = asyncio.get_running_loop().create_future()
        self._waiting[nonce] = future
        try:
            async with asyncio.timeout(patience):
                if not await self._publish(replica, _Control(nonce, self.replica, patience, message)):
                    return None
                answer = await future
        finally:
            del self._waiting[nonce]
        if isinstance(answer, WeirError):
            raise answer
        return answer

    async def _publish(self, replica: str, said: _Control | _Answer | _Failure) -> int:
        """How many listened. Raises StoreAway."""
        async with self._one_by_one:
            heard = self._store.client.publish(self._store.key("control", replica), msgspec.json.encode(said))
            return int(await self._store.wait(_WHAT, heard))

    def _give_up(self, why: Callable[[], WeirError]) -> None:
        """No answer will come to those who wait."""
        for future in self._waiting.values():
            if not future.done():
                future.set_result(why())

    async def _run(self) -> None:
        """Listens for ever, and anew after every outage."""
        failed = 0
        while True:
            try:
                await self._listen(after_outage=failed > 0)
            except (RedisError, OSError) as error:
                failed = 1 if self._listening.is_set() else failed + 1
                if failed == 1:
                    log.warning("controls from other replicas do not arrive: %s: %s", type(error).__name__, error)
            except Exception:
                log.exception("listening for controls failed")
                failed += 1
            self._listening.clear()
            self._give_up(lambda: StoreAway(_WHAT))
            pause = min(0.05 * 2 ** min(failed, 10), LONGEST_PAUSE)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # not all replicas at once

    async def _listen(self, *, after_outage: bool) -> None:
        """Takes what comes, until the subscription breaks. Its connection is nobody else's, and ends with it.

        A connection may look well and lead nowhere: so where nothing came for a while, Redis is asked for a word.
        """
        asked = False
        async with self._store.client.pubsub() as pubsub:
            await pubsub.subscribe(self._store.key("control", self.replica))
            while True:
                said = await pubsub.get_message(timeout=QUIET)
                if said is None and asked:
                    raise ConnectionError("the subscription is silent")
                asked = said is None
                if said is None:
                    await pubsub.ping()
                elif said["type"] == "subscribe":
                    self._listening.set()
                    if after_outage:
                        log.warning("controls from other replicas arrive again")
                elif said["type"] == "message":
                    self._take(said["data"])

    def _take(self, data: str) -> None:
        try:
            said = _decoder.decode(data)
        except msgspec.MsgspecError:  # a newer Weir's, perhaps
            log.warning("ignored a message on this replica's channel that is no control (%d characters)", len(data))
            return
        if isinstance(said, _Control):
            keep(self._acting, self._perform(said))
            return
        future = self._waiting.get(said.nonce)
        if future is None or future.done():  # it comes too late
            return
        if isinstance(said, _Answer):
            future.set_result(said.answer)
        else:
            future.set_result(WeirError(said.message, status=said.status, code=said.code, param=said.param))

    async def _perform(self, control: _Control) -> None:
        """Does what another replica asks, and tells it how that went, unless it no longer waits."""
        said: _Answer | _Failure
        try:
            async with asyncio.timeout(control.patience):
                said = _Answer(control.nonce, await self._act(control.message))
        except TimeoutError:
            return
        except WeirError as error:
            said = _Failure(control.nonce, error.message, error.status, error.code, error.param)
        except Exception:
            log.exception("a control failed")
            failed = WeirError(f"replica {self.replica} failed; its log has the details")
            said = _Failure(control.nonce, failed.message, failed.status, failed.code)
        with contextlib.suppress(StoreAway):
            await self._publish(control.sender, said)
