"""Google's Gemini API, by LiteLLM's classes for it."""

import importlib
import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from proxy.adapters.litellm_chunks import Piece
from proxy.adapters.litellm_translation import Question, Translated, Translation

_GEMINI = "litellm.llms.vertex_ai.gemini"
_OF_A_CHUNK = frozenset({"candidates", "usageMetadata", "modelVersion", "responseId", "createTime"})
_OF_A_CANDIDATE = frozenset({"content", "index"})
_OF_A_PART = frozenset({"text", "thought"})


class GeminiTranslation(Translation):
    vendor = "gemini"

    def __init__(self, litellm: Any, base_url: str | None, api_key: str, headers: dict[str, str]):
        super().__init__(litellm, base_url or os.environ.get("GEMINI_API_BASE"), api_key, headers)
        self._config = litellm.GoogleAIStudioGeminiConfig()
        self._chat = importlib.import_module(f"{_GEMINI}.vertex_and_google_ai_studio_gemini")
        self._request = importlib.import_module(f"{_GEMINI}.transformation")
        self._place = self._chat.VertexLLM()

    async def translate(self, question: Question) -> Translated:
        model, options = question.model, self._options(question)
        messages = self._messages(question, self._config)
        options.pop("stream", None)
        nowhere = {"vertex_project": None, "vertex_location": None}
        key, url = self._place.get_token_and_url(
            **nowhere,
            model=model,
            auth_header="",
            gemini_api_key=self._key,
            vertex_credentials=None,
            stream=True,
            custom_llm_provider=self.vendor,
            api_base=self._base_url,
        )
        settings: dict[str, Any] = {"api_base": self._base_url, "drop_params": question.drop}
        headers = self._config.validate_environment(
            api_key=key,
            headers=dict(self._headers),
            model=model,
            messages=messages,
            optional_params=options,
            litellm_params=settings,
        )
        log = SimpleNamespace(optional_params=question.fields)
        body = await self._request.async_transform_request_body(
            **nowhere,
            gemini_api_key=self._key,
            messages=messages,
            api_base=self._base_url,
            model=model,
            client=None,
            timeout=None,
            extra_headers=self._headers,
            optional_params=options,
            logging_obj=log,
            custom_llm_provider=self.vendor,
            litellm_params=settings,
            vertex_auth_header=key,
        )
        parser = self._chat.ModelResponseIterator(None, sync_stream=False, logging_obj=log)
        return Translated(url, headers, body, parser, _Answer(self._config).pieces)

    def suits(self, question: Question) -> bool:
        """Not where part of the prompt is to be cached: that takes requests of its own."""
        return super().suits(question) and not any(map(self._litellm.utils.is_cached_message, question.messages))


class _Answer:
    """One answer's chunks, as far as they can be read without a response object around each."""

    def __init__(self, config: Any):
        self._config = config
        self._counted: Any = None
        self._plain = True  # all that has come

    def pieces(self, chunk: dict[str, Any], runs: Callable[[int], bool]) -> Sequence[tuple[int, Piece]] | None:
        """Pieces of text, and of thoughts that bring no signature."""
        said = _said(chunk)
        running = said is not None and all(runs(index) for index, _ in said)
        self._plain = self._plain and said is not None
        # Each tells what has been counted up to there, half of its translation: that waits for the next whole one.
        if running or self._plain:
            self._counted = chunk.pop("usageMetadata", self._counted)
        elif self._counted:
            chunk.setdefault("usageMetadata", self._counted)
            self._counted = None
        if said is None or not running:
            return None
        return [(index, Piece(*self._config.get_assistant_content_message(parts))) for index, parts in said]


def _said(chunk: dict[str, Any]) -> list[tuple[int, Any]] | None:
    """The parts that are said in each choice; None where there is anything beside."""
    candidates = chunk.get("candidates")
    if not candidates or not chunk.keys() <= _OF_A_CHUNK:
        return None
    found = []
    for at, candidate in enumerate(candidates):
        parts = (candidate.get("content") or {}).get("parts")
        if not parts or not candidate.keys() <= _OF_A_CANDIDATE or not all(part.keys() <= _OF_A_PART for part in parts):
            return None
        found.append((candidate.get("index", at), parts))
    return found
