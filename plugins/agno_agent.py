"""An agno Agent or Team as a provider: type `agno_native`, `params: {agent: "module:attribute"}`.

An agent asks its own model and runs its own tools; Weir passes on what it says. Each run is a copy of the operator's
object, so that runs do not meet and nothing of his is changed. What agno tells of a run stands in its
`agno/run/agent.py` and `agno/run/team.py`; the least that an agent must have, in `agno/agent/protocol.py`.
"""

import asyncio
import importlib
import logging
import os
import uuid
from collections.abc import AsyncGenerator
from importlib.util import find_spec
from typing import Any

from plugins.agno_copy import Watch, own_copy, warm
from plugins.agno_events import RunReader
from plugins.agno_messages import agno_messages
from proxy.adapter import BaseProviderAdapter, Messages, Tools
from proxy.errors import ConfigError, Kind, ProviderError
from proxy.events import Event, Start
from proxy.provider import ProviderConfig
from proxy.registry import Registry
from proxy.tasks import end

INSTALL = "provider 'agno_native' needs agno: pip install --no-deps -r requirements/agno.lock"
MOST_READY = 1000  # events that an agent may have ready, so that it comes to no wait
EXAMPLE = "params.agent must name an agent of yours as 'module:attribute', such as 'my_agents:writer'"


class AgnoAdapter(BaseProviderAdapter):
    """Runs the agent that `params.agent` names. A client's tools and sampling fields are not its business."""

    features = frozenset({"streaming", "vision", "user_id"})
    only_in_file = True
    _agent: Any = None

    async def create_model(self) -> None:
        """Imports the operator's module, which may take seconds, and looks whether a run of its agent can begin."""
        self._agent = await asyncio.to_thread(_find, self.config)

    async def stream_chat(
        self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
    ) -> AsyncGenerator[Event, None]:
        """`user` is whose memories the agent may use; without it, it has met nobody before.

        A new session for each run: what was said before is in the messages, and not to be read by anyone else.
        """
        if self._agent is None:
            await self.create_model()
        model = kwargs.get("model", self.config.model_name)
        if model != self.config.model_name:
            raise ProviderError(Kind.MISSING, f"the agent has a model of its own, and does not know {model!r}")
        said, watch, run_id = agno_messages(messages), Watch(), uuid.uuid4().hex
        agent = own_copy(self._agent, watch)
        user = kwargs.get("user") or getattr(agent, "user_id", None) or run_id
        events: asyncio.Queue[Any] = asyncio.Queue(1)
        reader = RunReader(watch)
        yield Start(model=self.config.model_name)
        asked = {"session_id": run_id, "run_id": run_id, "user_id": str(user)}
        task = asyncio.create_task(_run(agent, said, asked, events))
        try:
            while (event := await events.get()) is not None:
                for one in reader.read(event):
                    yield one
        finally:
            await end(task, *watch.tasks)
        for one in reader.finish():
            yield one


async def _run(agent: Any, messages: list[Any], asked: dict[str, str], events: asyncio.Queue[Any]) -> None:
    """Puts what agno yields into `events`, then None. In a task of its own: some tools have to end where they began.

    agno's generators do not close those within them; a connection would stay open until a garbage collection. So a
    cancel that meets us here is passed on: at agno's next wait, it reaches the innermost of them first.
    """
    task, passed_on = asyncio.current_task(), 0
    assert task is not None
    try:
        async for event in agent.arun(messages, stream=True, stream_events=True, **asked):
            try:
                await events.put(event)
            except asyncio.CancelledError:
                if passed_on == MOST_READY:
                    raise
                passed_on += 1
                task.cancel()
    except Exception as error:  # an operator's code may raise anything
        await events.put(error)
    except asyncio.CancelledError:
        if not events.full():
            events.put_nowait(None)
        raise
    await events.put(None)


def _find(config: ProviderConfig) -> Any:
    """The operator's agent. Raises ConfigError."""
    unknown = config.params.keys() - {"agent"}
    problems = [f"params.{name} is unknown to provider 'agno_native'; it knows agent" for name in sorted(unknown)]
    if config.api_key or config.base_url or config.headers:
        problems.append("api_key, base_url, headers: an agent brings its own model; give them to that")
    module, colon, name = str(config.params.get("agent", "")).partition(":")
    if not (module and colon and name.isidentifier()):
        problems.append(EXAMPLE)
    if problems:
        raise ConfigError(problems)
    if find_spec("agno") is None:
        raise ConfigError([INSTALL], code="not_installed")
    found = _imported(module, name)
    try:
        own_copy(found, Watch())
    except Exception as error:
        raise ConfigError([f"params.agent: {module}:{name} cannot be copied, as each run needs: {error!r}"]) from None
    warm(found)
    return found


def _imported(module: str, name: str) -> Any:
    from agno.agent.protocol import AgentProtocol

    try:
        there = vars(importlib.import_module(module))
    except Exception as error:  # an operator's code may raise anything
        where = "it must be installed, or lie in the directory in which Weir is started"
        raise ConfigError([f"params.agent: {module!r} cannot be imported ({where}): {error!r}"]) from None
    _quiet()
    found = there.get(name)
    if not isinstance(found, AgentProtocol) or isinstance(found, type):
        agents = [it for it, value in there.items() if isinstance(value, AgentProtocol) and not isinstance(value, type)]
        what = f"is no agno Agent or Team but {type(found).__name__}" if name in there else "is not there"
        raise ConfigError([f"params.agent: {name} {what}; agents in {module}: {', '.join(agents) or 'none'}"])
    if getattr(found, "model", found) is None:
        raise ConfigError([f"params.agent: {module}:{name} has no model, and agno would choose one; give it yours"])
    return found


def _quiet() -> None:
    """agno's log quotes what vendors say, keys and all; what goes wrong is reported by us, redacted."""
    for name in ("agno", "agno-team", "agno-workflow"):
        logging.getLogger(name).disabled = "AGNO_DEBUG" not in os.environ


def register(registry: Registry) -> None:
    registry.add_adapter("agno_native", AgnoAdapter)
