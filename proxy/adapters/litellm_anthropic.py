"""Anthropic's Messages API, by LiteLLM's classes for it."""

import importlib
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from proxy.adapters.call_ids import unsigned
from proxy.adapters.litellm_chunks import Piece
from proxy.adapters.litellm_translation import KEPT, Question, Translated, Translation

_PATH = "/v1/messages"


class AnthropicTranslation(Translation):
    vendor = "anthropic"

    def __init__(self, litellm: Any, base_url: str | None, api_key: str, headers: dict[str, str]):
        super().__init__(litellm, base_url, api_key, headers)
        self._config = litellm.AnthropicConfig()
        # Asked of each request, answered by the model's name, and a third of the work.
        self._config._is_adaptive_thinking_model = lru_cache(KEPT)(self._config._is_adaptive_thinking_model)
        self._chat = importlib.import_module("litellm.llms.anthropic.chat.handler")
        base = self._config.get_api_base(base_url)
        whole = base.endswith(_PATH) or os.environ.get("LITELLM_ANTHROPIC_DISABLE_URL_SUFFIX", "").lower() == "true"
        self._url = base if whole else base + _PATH

    async def translate(self, question: Question) -> Translated:
        model, config, options = question.model, self._config, self._options(question)
        messages = unsigned(self._messages(question, config))
        settings: dict[str, Any] = {"api_base": self._base_url, "drop_params": question.drop}
        json_mode, speed = options.pop("json_mode", False), options.get("speed")
        headers = config.validate_environment(
            headers=dict(self._headers),
            model=model,
            messages=messages,
            optional_params=options,
            litellm_params=settings,
            api_key=self._key,
            api_base=self._url,
        )
        body = await config.async_transform_request(
            model=model, messages=messages, optional_params=options, litellm_params=settings, headers=headers
        )
        headers, body = self._chat.update_request_with_filtered_beta(
            headers=headers, request_data=body, provider=self.vendor
        )
        parser = self._chat.ModelResponseIterator(
            None,
            sync_stream=False,
            json_mode=json_mode,
            speed=speed,
            tool_name_reverse_map=settings.get(self._chat.ANTHROPIC_TOOL_NAME_REVERSE_MAP_KEY),
        )
        return Translated(self._url, headers, {**body, "stream": True}, parser, _Answer(parser).pieces)


_SILENT = ("ping", "message_stop")


class _Answer:
    """One answer's chunks, as far as they can be read without a response object around each."""

    def __init__(self, parser: Any):
        self._parser = parser
        self._counted: dict[str, Any] | None = None

    def pieces(self, chunk: dict[str, Any], runs: Callable[[int], bool]) -> Sequence[tuple[int, Piece]] | None:
        """Pieces of whatever kind: text, a thought, the input of a tool."""
        kind = chunk.get("type")
        if kind == "content_block_delta" and runs(0):
            text, call, blocks, fields, thought = self._parser._content_block_delta_helper(chunk)
            text, call = self._parser._handle_json_mode_chunk(text, call)
            return ((0, Piece(text, thought, call and [call], blocks, fields)),)
        # What has been counted before the answer is told again at its end, with the rest; once is enough.
        if kind == "message_start":
            self._counted = chunk["message"].pop("usage", None)
        elif kind == "message_delta" and self._counted is not None:
            chunk["usage"] = {**self._counted, **chunk.get("usage", {})}
            self._counted = None
        return () if kind in _SILENT else None
