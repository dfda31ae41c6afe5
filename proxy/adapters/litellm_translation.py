"""A request in a vendor's own words, and the reading of its answer, by LiteLLM's transformation classes alone.

`litellm.acompletion` comes by the same classes, on a way through its own logs, costs, retries and clients. Weir uses
none of these, and they take ten times as long as the classes do.
"""

import copy
import importlib
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from proxy.adapter import Messages
from proxy.adapters.litellm_chunks import Pieces

KEPT, LONGEST = 128, 64 * 1024  # sets of parameters whose translation is kept, and bytes of the longest

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Any]).decode


class Question(NamedTuple):
    """What is asked. Its messages may be changed; its fields are the client's, and may not."""

    model: str
    messages: Messages
    fields: dict[str, Any]
    drop: bool  # leaves out what the vendor does not have, instead of a refusal


class Translated(NamedTuple):
    """What to send, and what reads the answer: LiteLLM's parser for whole chunks, and `pieces` for most of them."""

    url: str
    headers: dict[str, str]
    body: dict[str, Any]
    parser: Any
    pieces: Pieces


class Translation(ABC):
    """The way to one provider. What of it is the same for all requests is looked up once."""

    vendor: str  # LiteLLM's name for it

    def __init__(self, litellm: Any, base_url: str | None, api_key: str, headers: dict[str, str]):
        self._litellm = litellm
        self._base_url = base_url
        self._key = api_key
        # In the name of LiteLLM, whose translation it is; unless the operator gives another.
        agent = importlib.import_module("litellm.llms.custom_httpx.http_handler").get_default_headers()
        self._headers = headers if "user-agent" in map(str.lower, headers) else {**agent, **headers}
        self._kept = lru_cache(KEPT)(self._options_as_json)
        self._names = lru_cache(KEPT)(self._name)

    @abstractmethod
    async def translate(self, question: Question) -> Translated:
        """Raises whatever LiteLLM raises."""

    def suits(self, question: Question) -> bool:
        """Whether LiteLLM would come this way; a few models it reaches by another API of the vendor's."""
        vendor, name = self._names(question.model)
        return vendor == self.vendor and not name.startswith("responses/")

    def _name(self, model: str) -> tuple[str, str]:
        name, vendor, _, _ = self._litellm.get_llm_provider(model=f"{self.vendor}/{model}", api_base=self._base_url)
        return vendor, name

    def _messages(self, question: Question, config: Any) -> Messages:
        messages = self._litellm.utils.validate_and_fix_openai_messages(messages=question.messages)
        messages = self._litellm.main.update_messages_with_model_file_ids(messages, None, {})
        translated: Messages = config.translate_developer_role_to_system_role(messages=messages)
        return translated

    def _options(self, question: Question) -> dict[str, Any]:
        """The parameters in the vendor's words. Clients ask with the same ones again and again."""
        try:
            asked = _encode((question.model, question.drop, question.fields))
            made = (self._kept if len(asked) <= LONGEST else self._options_as_json)(asked)
            return dict(_decode(made)[0])
        except TypeError:  # a program may say things that JSON has no word for
            return self._map(question.model, question.drop, copied(question.fields))

    def _options_as_json(self, asked: bytes) -> bytes:
        return _encode([self._map(*_decode(asked))])

    def _map(self, model: str, drop: bool, fields: dict[str, Any]) -> dict[str, Any]:
        utils = self._litellm.utils
        for name, checked in (
            ("stop", utils.validate_openai_optional_params),
            ("thinking", utils.validate_and_fix_thinking_param),
            ("tools", utils.validate_and_fix_openai_tools),
        ):
            if name in fields:
                fields[name] = checked(fields[name])
        if "tool_choice" in fields:
            fields["tool_choice"] = utils.validate_chat_completion_tool_choice(fields["tool_choice"], model)
        options: dict[str, Any] = utils.get_optional_params(
            model=model,
            custom_llm_provider=self.vendor,
            stream=True,
            stream_options={"include_usage": True},
            drop_params=drop,
            **fields,
        )
        return options


def copied(value: Any) -> Any:
    """As `copy.deepcopy`, which takes its time; what is asked is hardly ever anything but JSON."""
    if isinstance(value, dict):
        return {name: copied(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [copied(inner) for inner in value]
    return value if isinstance(value, str | int | float | None) else copy.deepcopy(value)
