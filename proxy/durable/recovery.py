"""What becomes of a stream whose producer died, once this replica has taken it over: as its request wants it."""

import logging
from typing import Literal

import msgspec

from proxy.durable.log import StreamLog
from proxy.durable.production import Production
from proxy.durable.transcript import Transcript
from proxy.errors import RequestError, StoreAway, WeirError
from proxy.events import Error, Finish, Recovered
from proxy.journey import Journey
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.stream import Resumption, Stream
from proxy.record import NOWHERE, Opening
from proxy.request import ChatRequest
from proxy.session.conversation import AnswerRecord
from proxy.state.sessions import SessionRef
from proxy.state.stream_log import LogStore

log = logging.getLogger(__name__)

DIED = "the replica that produced this stream died"


class Recovery:
    """One stream that was taken over."""

    def __init__(self, logs: LogStore, pipeline: Pipeline, log: StreamLog, opening: Opening):
        self.log = log
        self._logs = logs
        self._pipeline = pipeline
        self._opening = opening
        self._transcript = Transcript()

    async def begin(self) -> Production | None:
        """Writes down what comes of the stream. What produces the rest; None where it ends here. Raises StoreAway."""
        about, readable = self.log.about, await self._read()
        if readable and self._transcript.is_complete(about.choices) and not about.heading.several:
            await self._finished()
            return None
        first = self._opening.recoveries == 1 and not self._transcript.recovered  # what died once more is not mended
        if readable and first and about.recovery != "fail" and (request := await self._request()) is not None:
            if about.recovery == "restart":
                return self._produced(request, Recovered(how="restarted", reason=DIED))
            said = self._transcript.said  # only text can be gone on with, and not by every model
            if said.is_text and await self._pipeline.goes_on(request):
                return self._produced(request, Recovered(how="continued", reason=DIED), said.text())
        await self._failed()
        return None

    async def _read(self) -> bool:
        """Whether this version of Weir understands all that is in the log."""
        place = NOWHERE
        try:
            while entries := await self._logs.page(self.log.id, place):
                for entry in entries:
                    for event in entry.events:
                        self._transcript.add(event)
                place = entries[-1].place
        except msgspec.MsgspecError as error:
            log.warning("stream %s was written by another version: %s", self.log.id, error)
            return False
        self.log.take_up(self._transcript.facts, self._transcript.size)
        return True

    async def _finished(self) -> None:
        """All of the answer was there, but for the word that it was all."""
        self.log.add(Finish(usage=self._transcript.usage))
        await self._end_turn("finish")

    async def _request(self) -> ChatRequest | None:
        """What is to be asked again; None if that is not possible, or too much is being asked again already."""
        asked = await self._logs.asked(self.log.id)
        if asked is None or self._pipeline.failover.budget.is_spent:
            return None
        request = ChatRequest.kept(asked)
        try:
            self._pipeline.check(request)
        except RequestError:  # nobody serves it any more, or not here
            return None
        if (session := self.log.about.session) is not None:
            request.options.replace_last = await self._is_last_turn(session)
        return request.with_messages([*request.messages, *self._transcript.told])

    def _produced(self, request: ChatRequest, marker: Recovered, prefill: str = "") -> Production:
        it, heading = self._transcript, self.log.about.heading
        resumed = Resumption(self.log.id, self.log.seq, marker, frozenset(it.begun), prefill, it.asked)
        journey = Journey(heading.request_id, heading.model, request.options.mode)
        stream = Stream(journey, self._logs.replica, self.log.about.owner, resumed)
        return Production(self._pipeline, self.log, request, stream)

    async def _failed(self) -> None:
        if self.log.seq:
            self.log.add(Recovered(how="failed", reason=DIED))
            self.log.add(Error(message=f"{DIED}; what it said until then stands", code="replica_lost"))
        else:  # nobody was told anything: it is as if it had not begun, and may be asked again
            self.log.add(Error(message=DIED, code="replica_lost", status=503))
        await self._end_turn("error", DIED)

    async def _end_turn(self, how: Literal["finish", "error"], why: str = "") -> None:
        """The turn of a session that was being answered, if there is one, is over, with what was said."""
        if (ref := self.log.about.session) is None:
            return
        try:
            session = await self._pipeline.sessions.load(ref)
            turns = [turn for turn in session.turns if turn.stream_id == self.log.id] if session else []
            if turns and turns[-1].state == "running":
                said = AnswerRecord(provider="", end=how, error=why, message=self._transcript.said.message())
                await self._pipeline.sessions.end(ref, turns[-1].id, [said])
        except WeirError as error:  # the stream's own end matters more
            log.warning("the turn of stream %s: %s", self.log.id, error.message)

    async def _is_last_turn(self, ref: SessionRef) -> bool:
        """Whether the session's last turn is this stream's, which a new answer is to replace."""
        try:
            session = await self._pipeline.sessions.load(ref)
        except StoreAway:
            return False
        return bool(session and session.turns and session.turns[-1].stream_id == self.log.id)
