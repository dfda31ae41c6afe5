"""The copy of an agno agent that serves one run: it asks once, and tells us what agno's events leave out."""

import asyncio
import copy
from contextlib import suppress
from functools import cache
from typing import Any, Self

from proxy.errors import Kind, ProviderError
from proxy.retry_after import retry_after

MODELS = ("model", "reasoning_model", "parser_model", "output_model")


class Watch:
    """What a run's models tell: why one failed, how the answer ended, and in which tasks they were asked."""

    def __init__(self) -> None:
        self.failures: dict[str, ProviderError] = {}  # by what they say: an event has the words alone
        self.reason: str | None = None
        self.tasks: set[asyncio.Task[Any]] = set()  # agno leaves a team's members running when the team is closed

    def note(self, error: Exception) -> None:
        """Keeps a model's failure, whole."""
        self.failures[str(error)] = error if isinstance(error, ProviderError) else _failure(error)

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # agno copies models for work of their own, such as keeping memories


def _failure(error: Exception) -> ProviderError:
    """A failure in our terms. agno's errors have a status; where nobody answered, it is 502."""
    status = getattr(error, "status_code", None) or 502
    response = getattr(error.__cause__, "response", None)
    if response is None:
        return ProviderError(Kind.of_status(status), str(error))
    wait = retry_after(getattr(response, "headers", {}))
    return ProviderError(Kind.of_status(status), str(error), upstream_status=status, retry_after=wait)


def own_copy(agent: Any, watch: Watch) -> Any:
    """A copy as agno's own server makes them for each run, with retries and reports to agno's makers off.

    Raises whatever an operator's own kind of agent may raise.
    """
    ours = agent.deep_copy() if hasattr(agent, "deep_copy") else copy.copy(agent)
    for name, value in (("retries", 0), ("telemetry", False)):
        if hasattr(ours, name):
            setattr(ours, name, value)
    for name in MODELS:
        if model := getattr(ours, name, None):
            setattr(ours, name, _watched(model, watch))
    if isinstance(members := getattr(ours, "members", None), list):
        ours.members = [own_copy(member, watch) for member in members]
    return ours


def warm(agent: Any) -> None:
    """Makes the clients that runs will share. Their SDKs import for a second when first used: not in the event loop."""
    for model in filter(None, (getattr(agent, name, None) for name in MODELS)):
        with suppress(Exception):  # a key is missing, say: the first request will be told
            client = model.get_async_client()
            for name in ("chat", "responses", "messages"):
                getattr(client, name, None)
    members = getattr(agent, "members", None)
    for member in members if isinstance(members, list) else ():
        warm(member)


def _watched(model: Any, watch: Watch) -> Any:
    ours = copy.copy(model)
    kind: Any = type(model)
    ours.__class__ = _watched_kind(kind)
    ours.weir_watch, ours.weir_origin, ours.retries = watch, model, 0
    return ours


@cache
def _watched_kind(kind: Any) -> Any:
    """`kind` of model, watched. It also finds streams on OpenAI's two wires that were cut: agno lets them pass."""

    class Watched(kind):  # type: ignore[misc]
        def get_client(self, *args: Any, **kwargs: Any) -> Any:
            return self.weir_origin.get_client(*args, **kwargs)

        def get_async_client(self, *args: Any, **kwargs: Any) -> Any:
            """The operator's, whose connections all runs share, without the retries of its SDK."""
            client = self.weir_origin.get_async_client(*args, **kwargs)
            return client.with_options(max_retries=0) if hasattr(client, "with_options") else client

        async def ainvoke(self, *args: Any, **kwargs: Any) -> Any:
            self.weir_watch.tasks.add(asyncio.current_task())
            try:
                return await super().ainvoke(*args, **kwargs)
            except Exception as error:
                self.weir_watch.note(error)
                raise

        async def ainvoke_stream(self, *args: Any, **kwargs: Any) -> Any:
            self.weir_watch.tasks.add(asyncio.current_task())
            answered, wire, reason = False, False, None
            try:
                async for response in super().ainvoke_stream(*args, **kwargs):
                    answered = True
                    if hasattr(response, "weir_reason"):
                        wire, reason = True, response.weir_reason or reason
                    yield response
                if not answered or (wire and not reason):
                    raise ProviderError(Kind.CUT, "the stream of its model ended without a finish_reason")
            except Exception as error:
                self.weir_watch.note(error)
                raise
            self.weir_watch.reason = reason

        def _parse_provider_response_delta(self, chunk: Any, *args: Any, **kwargs: Any) -> Any:
            result = super()._parse_provider_response_delta(chunk, *args, **kwargs)
            response = result[0] if isinstance(result, tuple) else result
            for choice in getattr(chunk, "choices", None) or ():
                response.weir_reason = choice.finish_reason
            if str(getattr(chunk, "type", "")).startswith("response."):
                response.weir_reason = {"response.completed": "stop", "response.incomplete": "length"}.get(chunk.type)
            return result

    Watched.__name__ = kind.__name__  # agno goes by the names of some
    return Watched
