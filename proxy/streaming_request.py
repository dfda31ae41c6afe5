"""A request of the streaming API: what a chat request says, by the guide's names."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from proxy.errors import RequestError
from proxy.request import ChatRequest, converted
from proxy.session.conversation import SESSION_ID

Format = Literal["sse", "openai", "ui"]


class _Body(msgspec.Struct):
    """The fields that are the streaming API's own; all others are those of a chat completions body."""

    provider_id: str | None = None
    provider_ids: list[str] = []
    model: str | None = None
    stream_format: Format = "sse"
    generator_mode: str = "standard"
    generator_config: dict[str, Any] = {}
    session_id: Annotated[str, msgspec.Meta(pattern=SESSION_ID)] | None = None
    user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    history: bool = True
    ui: Literal[5, 6, 7] = 5
    weir: dict[str, Any] = {}


class StreamingRequest:
    """`chat` is the request for the pipeline, `format` how its answer is written."""

    def __init__(self, body: dict[str, Any], id: str, default: Callable[[], str]):
        """`default` tells who answers where the body names nobody. Raises RequestError naming the field at fault."""
        known = converted(body, _Body)
        self.format: Format = known.stream_format
        self.user_id = known.user_id
        sources = known.provider_ids or [known.provider_id or known.model or default()]
        fields = {name: value for name, value in body.items() if name not in _Body.__struct_fields__}
        options = {
            **known.weir,
            "mode": known.generator_mode,
            "config": known.generator_config,
            "providers": known.provider_ids,
            "session_id": known.session_id,
            "history": known.history and known.session_id is not None,
        }
        try:
            self.chat = ChatRequest({**fields, "model": sources[0], "stream": True, "weir": options}, id)
        except RequestError as error:
            raise _renamed(error) from None
        self.chat.user_id = known.user_id
        self.chat.ui = known.ui
        self.chat.options_in = "generator_"


def _renamed(error: RequestError) -> RequestError:
    if error.param == "weir.providers":
        error.param = "provider_ids"
        error.message = error.message.replace("weir.providers", "provider_ids", 1)
    return error
