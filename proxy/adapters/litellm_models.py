"""What each model takes, by the map that comes with LiteLLM; read without importing LiteLLM.

Reading it costs 5 ms and half a megabyte, the import seconds and 160 MB, which those who only relay need not have.
"""

import asyncio
import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

_FILE = "model_prices_and_context_window_backup.json"


class _Model(msgspec.Struct, gc=False):
    max_input_tokens: Any = None  # a remark, in its entry that explains the others
    supports_assistant_prefill: Any = None


async def window_of(provider_type: str, model: str) -> int | None:
    """Tokens, or None for a model that the map does not know. By the name it has at this type of provider, if any."""
    known = [entry.max_input_tokens for entry in await _entries(provider_type, model)]
    return next((tokens for tokens in known if isinstance(tokens, int) and tokens > 0), None)


async def takes_prefill(provider_type: str, model: str) -> bool:
    """Whether it goes on with what an assistant's last message began."""
    return any(entry.supports_assistant_prefill is True for entry in await _entries(provider_type, model))


async def _entries(provider_type: str, model: str) -> list[_Model]:
    """Of that model: by its name at this type of provider, then by its own."""
    models = _models() if _models.cache_info().currsize else await asyncio.to_thread(_models)
    return [models[name] for name in (f"{provider_type}/{model}", model) if name in models]


@functools.cache
def _models() -> dict[str, _Model]:
    spec = find_spec("litellm")  # finds it, and does not run it
    places = spec.submodule_search_locations if spec else None
    files = [file for place in places or () if (file := Path(place, _FILE)).exists()]
    if not files:
        return {}
    return msgspec.json.decode(files[0].read_bytes(), type=dict[str, _Model])
