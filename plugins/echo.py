"""A provider of your own, complete: it answers with what the user said last, word by word.

Put a file like this on PYTHONPATH, name it under `plugins` in providers.yaml, and name its type in a provider:

    plugins: [plugins.echo]
    providers:
      - {provider_id: echo, provider_type: echo, model_name: echo, params: {delay: 0.1}}

An adapter is asked for streams of events, and that is all: retries, falling back to another provider, time limits,
statistics and every wire format come from Weir. `tests/plugins/test_echo.py` shows how to hold it to the rules.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

from proxy.adapter import BaseProviderAdapter, Messages, Tools
from proxy.errors import ConfigError, Kind, ProviderError
from proxy.events import Event, Finish, FinishStep, Start, TextDelta, Usage
from proxy.registry import Registry


class EchoAdapter(BaseProviderAdapter):
    """One instance serves all streams of one provider at once: what belongs to a stream stays in `stream_chat`.

    `self.config` is the provider's entry in providers.yaml, or its registration; `params` there is all yours.
    """

    async def create_model(self) -> None:
        """Comes before the first stream. Say what is wrong with the configuration here: `make check` shows it."""
        delay = self.config.params.get("delay", 0)
        if not isinstance(delay, int | float) or not 0 <= delay <= 60:
            raise ConfigError(["params.delay must be seconds between two words, 0 to 60"])

    async def stream_chat(
        self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
    ) -> AsyncGenerator[Event, None]:
        """`kwargs` are the other fields of the request, those you never heard of too: take what you know."""
        asked = [message for message in messages if message["role"] == "user"]
        if not asked:
            # The kind decides what happens next: REJECTED is the client's own fault, and nobody else is asked;
            # after TIMEOUT, say, the request is tried again, and then another provider is.
            raise ProviderError(Kind.REJECTED, "echo needs a message from the user", upstream_status=400)
        words = _words(asked[-1])
        said = words[: kwargs.get("max_completion_tokens") or kwargs.get("max_tokens")]
        yield Start(model=kwargs.get("model", self.config.model_name))
        for word in said:
            # Only ever wait with `await`: time.sleep would hold up every other stream (and be named in the log).
            await asyncio.sleep(self.config.params.get("delay", 0))
            yield TextDelta(content=word)
        yield FinishStep(reason="stop" if said == words else "length")
        # Weir takes a stream without a Finish for one that broke. So never say it unless the answer is complete.
        yield Finish(usage=Usage(input_tokens=sum(map(len, map(_words, messages))), output_tokens=len(said)))


def _words(message: dict[str, Any]) -> list[str]:
    """Each with the space before it. OpenAI's `content` is a text, or a list of parts of which some are texts."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return re.findall(r"\s*\S+", " ".join(texts))


def register(registry: Registry) -> None:
    """Called once, when Weir starts. The built-in providers come in by this door too: proxy/adapters/__init__.py."""
    registry.add_adapter("echo", EchoAdapter)
