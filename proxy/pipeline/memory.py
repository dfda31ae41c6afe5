"""A request's part in its session: what was said before goes in front of it, and what is said now is kept."""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress

from proxy.adapter import Messages
from proxy.errors import StoreAway
from proxy.events import ENDS, Event, Finish, SourceEnd, Steered
from proxy.journey import STEERED
from proxy.merge import source_end
from proxy.pipeline.routing import Route
from proxy.pipeline.source import Source
from proxy.pipeline.stream import Stream
from proxy.request import ChatRequest
from proxy.session.conversation import AnswerRecord, Spent, history
from proxy.session.window import size_of, trimmed
from proxy.state.sessions import SessionRef, SessionStore
from proxy.upstream import Upstream

LEFT = "its reader went away"


class Memory:
    """Begun with `recall`; then `kept` writes each turn down before its end is told, and `close` what broke off.

    So who has seen the end of an answer finds it in the history of the next request. A steered answer is two turns:
    what was said until then, and the instruction with what followed.
    """

    def __init__(self, sessions: SessionStore, request: ChatRequest, stream: Stream):
        self._sessions = sessions
        self._ref = stream.session = SessionRef.of(request.owner, request.options.session_id or "")
        self._stream = stream
        self._turn: str | None = None
        self._number = 0  # the instruction that the turn began with; 0 is the request itself
        self._told: Counter[str] = Counter()  # source -> markers that have passed
        self._upstreams: dict[str, Upstream] = {}

    async def recall(self, request: ChatRequest, routes: Sequence[Route]) -> ChatRequest:
        """The request as the model is to see it. Raises StoreAway (503), RequestError (413)."""
        options = request.options
        new = request.messages if options.history else _since_the_last_answer(request.messages)
        begun = await self._sessions.begin(
            self._ref, new, self._stream.id, read=options.history, replace_last=options.replace_last
        )
        self._turn = begun.turn
        if not options.history:
            return request
        self._upstreams = {upstream.id: upstream for upstream, _ in routes}
        rooms = [await upstream.room(model, request.fields, request.tools) for upstream, model in routes]
        messages = trimmed(history(begun.session), new, min(rooms))
        self._stream.journey.note("goes on from %d messages of its session", len(messages) - len(request.messages))
        return request.with_messages(messages)

    async def kept(self, events: AsyncIterator[Event], sources: Sequence[Source]) -> AsyncGenerator[Event, None]:
        """`events`, each turn written down before the reader is told that it is over."""
        async for event in events:
            if type(event) is Steered:
                await self._next_turn(event, sources)
            elif type(event) in ENDS:
                self._learn(sources)
                await self._end(sources)
            yield event

    async def close(self, sources: Sequence[Source]) -> None:
        """Writes down what is left, for a reader who did not wait for the end."""
        await self._end(sources)

    async def _next_turn(self, marker: Steered, sources: Sequence[Source]) -> None:
        """Ends the turn, and begins that of the instruction, at the first of its markers (each source sends one).

        The sources may be further by now than what their reader has got.
        """
        source = next((it for it in sources if it.journey.model == marker.source), sources[0])
        self._told[source.journey.model] += 1
        number = [*source.answers][self._told[source.journey.model]]
        if number > self._number:
            await self._end(sources, STEERED)
            self._number = number
            instruction = [{"role": "user", "content": marker.instruction}]
            with suppress(StoreAway):  # the answer goes on; what Redis does not hear of is not kept
                self._turn = (await self._sessions.begin(self._ref, instruction, self._stream.id, read=False)).turn

    def _learn(self, sources: Sequence[Source]) -> None:
        """The tokens billed tell how well the size of a prompt was guessed."""
        for source in sources:
            upstream = self._upstreams.get(source.journey.provider)
            if upstream is not None and isinstance(source.end, Finish) and source.end.usage:
                size = size_of(source.request.messages, source.request.tools)
                upstream.estimate.learn(size, source.end.usage.input_tokens)

    async def _end(self, sources: Sequence[Source], why: str = LEFT) -> None:
        """A source that had ended before has no part in what follows an instruction."""
        turn, self._turn = self._turn, None
        if turn is not None:
            number = self._number
            answers = [_answer(source, number, why) for source in sources if number in source.answers]
            await self._sessions.end(self._ref, turn, answers)


def _since_the_last_answer(messages: Messages) -> Messages:
    """What is new of a conversation that the client keeps, and sends as a whole each time."""
    answers = [at for at, message in enumerate(messages) if message.get("role") == "assistant"]
    return messages[answers[-1] + 1 :] if answers else messages


def _answer(source: Source, number: int, why: str) -> AnswerRecord:
    """What it said to the instruction of that number; `why` it said no more, if it has not ended by itself."""
    name = source.journey.model
    ended = SourceEnd(reason="abort", message=why)
    if source.end is not None and source.obeyed == number:
        ended = source_end(name, source.end)
    said = source.answers[number].message(source.journey.provider)
    return AnswerRecord(
        provider=source.journey.provider,
        source=name,
        end=ended.reason,
        message=said,
        error=ended.message,
        usage=Spent.of(ended.usage),
    )
