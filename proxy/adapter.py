"""The one seam to vendors: a new kind of provider is one small class with `stream_chat`."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from typing import Any, ClassVar

import aiohttp

from proxy.events import Event
from proxy.provider import ProviderConfig

Messages = list[dict[str, Any]]
Tools = list[dict[str, Any]]


class BaseProviderAdapter(ABC):
    """Speaks to one provider. One instance serves all of its streams at once.

    `config` is the provider's registration, `session` an HTTP client shared by the whole process (its proxy and
    CA settings are the operator's); use it or leave it.
    """

    features: ClassVar[frozenset[str]] = frozenset({"streaming"})

    # It runs code that its params name, so such a provider stands in providers.yaml and is never registered over REST.
    only_in_file: ClassVar[bool] = False

    def __init__(self, config: ProviderConfig, session: aiohttp.ClientSession):
        self.config = config
        self.session = session

    async def create_model(self) -> None:
        """Makes ready what the first stream needs, such as a slow import; called again if it raised.

        Raises ConfigError if this provider can never work as it is configured (say what to do).
        """

    @abstractmethod
    def stream_chat(
        self, /, messages: Messages, tools: Tools | None = None, **kwargs: Any
    ) -> AsyncGenerator[Event, None]:
        """Asks the model, and yields what it answers; the last event is a Finish.

        `kwargs` are the other fields of an OpenAI chat completions body, unknown ones included; `model` is the
        upstream's name of the model and defaults to the provider's. Closing the generator ends the upstream call.

        Raises ProviderError for whatever goes wrong, at any point, a stream cut short included. Must not retry.
        """

    def supports_feature(self, feature: str) -> bool:
        """Whether streams may use `feature`: "streaming", "tools", "vision", "reasoning", "json" ..."""
        return feature in self.features

    def context_window(self, model: str) -> int | None:
        """Tokens that a prompt and its answer may have together, where the adapter knows better than LiteLLM's map."""
        return None

    async def close(self) -> None:
        """Lets go of what `create_model` and streams took."""
