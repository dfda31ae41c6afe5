"""How long a prompt each model takes, by the map that comes with LiteLLM; read without importing LiteLLM.

Reading it costs 5 ms and half a megabyte, the import seconds and 160 MB, which those who only relay need not have.
"""

import asyncio
import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

_FILE = "model_prices_and_context_window_backup.json"


class _Model(msgspec.Struct):
    max_input_tokens: Any = None  # a remark, in its entry that explains the others


async def window_of(provider_type: str, model: str) -> int | None:
    """Tokens, or None for a model that the map does not know. By the name it has at this type of provider, if any."""
    windows = _windows() if _windows.cache_info().currsize else await asyncio.to_thread(_windows)
    return windows.get(f"{provider_type}/{model}") or windows.get(model)


@functools.cache
def _windows() -> dict[str, int]:
    spec = find_spec("litellm")  # finds it, and does not run it
    places = spec.submodule_search_locations if spec else None
    files = [file for place in places or () if (file := Path(place, _FILE)).exists()]
    if not files:
        return {}
    models = msgspec.json.decode(files[0].read_bytes(), type=dict[str, _Model])
    windows = {name: model.max_input_tokens for name, model in models.items()}
    return {name: tokens for name, tokens in windows.items() if isinstance(tokens, int) and tokens > 0}
