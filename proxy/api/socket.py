"""One WebSocket, with the chats that run on it."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable
from contextlib import aclosing

from starlette.websockets import WebSocket

from proxy.api.auth import owner_of
from proxy.api.outbox import Outbox
from proxy.bucket import Bucket
from proxy.durable.reader import Reader
from proxy.errors import INTERNAL, RequestError, Stopped, WeirError
from proxy.events import ENDS, ending
from proxy.pipeline.control import Control
from proxy.pipeline.running import Running
from proxy.pipeline.stream import CLIENT_GONE, SHUTDOWN
from proxy.position import read_position
from proxy.reading import Asked, events_of
from proxy.request import ChatRequest
from proxy.streaming_request import StreamingRequest
from proxy.tasks import end, keep
from proxy.websocket import LEAVE
from proxy.weir import Weir
from proxy.wire import frames

log = logging.getLogger(__name__)

MOST_CHATS = 16  # at once
MOST_PAST = 32  # chats that have ended, and may still be rated
MOST_REPLIES = 16  # that are on their way at once; until there is room again, nothing is read
MESSAGES, MESSAGES_AT_ONCE = 50, 200  # from the client, a second and at once
ENDING = 1.0  # seconds that chats may take to end, and to say so, once they were told to
LOOK = 0.1  # seconds between looks whether they were
FLOOD, LEAVING = 1008, 1012  # close codes: policy violation, service restart


class Socket:
    """A task for each chat, one that reads, and one for as long as a reply takes; none for a token."""

    def __init__(self, websocket: WebSocket, user_id: str, session_id: str, *, traced: bool = False):
        self._websocket = websocket
        self._weir: Weir = websocket.state.weir
        self._connected = self._weir.sockets.add_connection(self, user_id, session_id)
        self._outbox = Outbox(websocket, self._weir.settings.stall)
        self._flow = Bucket(MESSAGES, MESSAGES_AT_ONCE)
        self._room = asyncio.Semaphore(MOST_REPLIES)
        self._chats: dict[str, Asked] = {}  # that run, by request_id
        self._past: OrderedDict[str, Asked] = OrderedDict()
        self._begun = 0  # chats, so far
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = False
        self._traced = traced  # an admin wants to know what happens here
        if leave := websocket.scope.get("extensions", {}).get(LEAVE):
            leave["call"] = self.leave

    async def run(self) -> None:
        """Returns when the socket is closed, and all that ran on it has ended."""
        its = self._connected
        try:
            await self._say(frames.connected(its.user_id, its.session_id, its.id))
            await self._read()
        finally:
            self._weir.sockets.remove_connection(its)
            await self._end()

    async def send_text(self, data: str) -> None:
        """For `Sockets.send_message`. Raises ConnectionError where nobody is left to take it."""
        await self._say(data)
        if self._outbox.gone:
            raise ConnectionError(CLIENT_GONE)

    def leave(self) -> None:
        """The server shuts down: no new chats; and once those that run have ended, it is closed."""
        self._leaving = True
        self._close_if_done()
        self._see_off()

    def _see_off(self) -> None:
        """A client that takes nothing, not even the ends of chats that Weir has stopped, does not hold it up."""
        loop = asyncio.get_running_loop()
        if any(map(self._goes_on, self._chats.values())):
            loop.call_later(LOOK, self._see_off)
        else:
            loop.call_later(ENDING, self._outbox.drop)

    def _goes_on(self, chat: Asked) -> bool:
        """Whether it has not been told to end yet; a durable stream is, when all are left to other replicas."""
        if isinstance(chat.running, Reader):
            return not self._weir.durable.released
        return chat.running is None or chat.running.journey.stopped is None

    async def _say(self, frame: str) -> None:
        self._weir.sockets.messages["messages_out"] += 1
        await self._outbox.send(frame)

    async def _read(self) -> None:
        while (message := await self._websocket.receive())["type"] == "websocket.receive":
            self._weir.sockets.messages["messages_in"] += 1
            if not self._flow.take():
                reason = f"more than {MESSAGES} messages a second, or {MESSAGES_AT_ONCE} at once"
                await self._outbox.close(FLOOD, reason)
                return
            await self._room.acquire()
            keep(self._tasks, self._reply(message.get("text") or message.get("bytes") or b""))

    async def _reply(self, text: str | bytes) -> None:
        """Tasks begin in the order in which they were made: so messages take effect in the order in which they came."""
        said = None
        try:
            said = frames.read(text)
            reply = await self._obey(said)
        except WeirError as error:
            known = (said.request_id, said.message_type) if said else ()
            reply = frames.error(error, *known)
        except Exception:
            log.exception("a message on socket %s failed", self._connected.id)
            reply = frames.error(WeirError(INTERNAL))
        try:
            if reply is not None:
                await self._say(reply)
        finally:
            self._room.release()

    async def _obey(self, said: frames.Message) -> str | None:
        if said.message_type == "ping":
            return frames.pong(said.request_id)
        if said.message_type == "chat_request" or (said.message_type == "resume" and "stream_id" in (said.data or {})):
            return self._begin(said)
        name, chat = self._find(said.request_id)
        control = Control.read(said.message_type, said.data or {})
        return frames.control_result(name, said.message_type, await self._perform(chat, control))

    async def _perform(self, chat: Asked, control: Control) -> int:
        """Where `control` took effect. A durable stream may be produced anywhere by now."""
        if chat.stream is not None and not chat.stream.durable:
            return await self._weir.controls.perform(chat.stream, control)
        done = await self._weir.controls.send(chat.id, owner_of(self._websocket), control)
        return int(done["position"])

    def _find(self, name: str | None) -> tuple[str, Asked]:
        if name is not None:
            if chat := self._chats.get(name) or self._past.get(name):
                return name, chat
            raise RequestError("there is no such chat on this socket", param="request_id", code="unknown_request_id")
        if len(self._chats) == 1:
            return next(iter(self._chats.items()))
        problem = f"request_id: say which chat you mean; {len(self._chats)} are running"
        raise RequestError(problem, param="request_id", code="which_request_id")

    def _begin(self, said: frames.Message) -> str | None:
        """Begins a chat; or what to say, where it cannot begin, as of one that has ended."""
        self._begun += 1
        id = f"{self._connected.id}-{self._begun}"  # in the log
        name = said.request_id or id
        if name in self._chats:
            problem = "request_id: a chat of this name is running"
            raise RequestError(problem, param="request_id", code="request_id_taken")
        try:
            if self._leaving:
                raise Stopped(SHUTDOWN)
            if len(self._chats) >= MOST_CHATS:
                problem = f"{MOST_CHATS} chats are running on this socket: wait for one to end, or open another socket"
                raise RequestError(problem, status=429, code="too_many_chats")
            begin = self._asked if said.message_type == "chat_request" else self._resumed
            chat = begin(name, said.data or {}, id)
        except WeirError as error:
            return frames.stream_event(name, ending(error))
        self._chats[name] = chat
        self._connected.chats += 1
        keep(self._tasks, self._run(name, chat))
        return None

    def _asked(self, name: str, data: dict[str, object], id: str) -> Asked:
        request = self._request(data, id)
        stream = self._weir.stream(request, owner_of(self._websocket))
        stream.journey.traced = self._traced
        return Asked(stream.id, lambda: self._opened(name, self._weir.run(request, stream)), stream)

    def _resumed(self, name: str, data: dict[str, object], id: str) -> Asked:
        """A durable stream, from after the last `position` that the client has had."""
        told = frames.resumed(data)
        after, owner, read = read_position(told.after), owner_of(self._websocket), self._weir.durable.read
        return Asked(told.stream_id, lambda: self._opened(name, read(told.stream_id, owner, id, after)))

    async def _opened(self, name: str, opening: Awaitable[Running]) -> Running:
        """The answer; where it can be come back to, the client is told how before anything of it comes."""
        running = await opening
        if isinstance(running, Reader):
            await self._say(frames.stream_opened(name, running.id))
        return running

    def _request(self, data: dict[str, object], id: str) -> ChatRequest:
        given = {name: value for name, value in data.items() if name not in ("stream_format", "ui")}  # frames it is
        its = self._connected
        asked = StreamingRequest({"session_id": its.session_id, **given}, id, self._weir.router.default)
        asked.chat.user_id, asked.chat.owner = its.user_id, owner_of(self._websocket, its.user_id)
        return asked.chat

    async def _run(self, name: str, chat: Asked) -> None:
        """One chat, to its one end."""
        try:
            await self._tell(name, chat)
        except Exception:  # an event may hold what no frame can: a text that is not Unicode, say
            log.exception("chat %s on socket %s failed", chat.id, self._connected.id)
            if self._chats.get(name) is chat:
                self._over(name, chat)
                await self._say(frames.stream_event(name, ending(WeirError(INTERNAL))))
        self._over(name, chat)  # a client that came back may have had all of it before
        self._weir.sockets.count()
        self._close_if_done()

    async def _tell(self, name: str, chat: Asked) -> None:
        async with aclosing(events_of(chat)) as events:
            async for event in events:
                frame = frames.stream_event(name, event, chat.position)
                if type(event) in ENDS:  # first: when the client has read it, it may use the name again
                    self._over(name, chat)
                if chat.running is not None:
                    chat.running.journey.bytes += len(frame)
                await self._say(frame)

    def _over(self, name: str, chat: Asked) -> None:
        if self._chats.get(name) is not chat:
            return
        if chat.stream is not None and not chat.stream.durable:
            chat.stream.close()  # it may never have begun: a control that comes now comes too late
        del self._chats[name]
        self._connected.chats -= 1
        self._past[name] = chat
        self._past.move_to_end(name)
        if len(self._past) > MOST_PAST:
            self._past.popitem(last=False)

    def _close_if_done(self) -> None:
        if self._leaving and not self._chats:
            keep(self._tasks, self._outbox.close(LEAVING, SHUTDOWN))

    async def _end(self) -> None:
        """Ends what runs. Nobody is told any more, so nothing waits for a client to take it."""
        self._outbox.leave()
        for chat in self._chats.values():
            chat.stop(CLIENT_GONE)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ENDING)
        await end(*self._tasks)
