"""Cohere's chunks: https://docs.cohere.com/v2/docs/streaming

LiteLLM's parser knows their text alone. Ends, tool calls and tokens it looks for where Cohere does not say them, and so
no answer would ever be complete.
"""

from types import SimpleNamespace
from typing import Any

from proxy.adapters.litellm_chunks import Piece
from proxy.errors import Kind, ProviderError

PARSER = "CohereV2ModelResponseIterator"  # LiteLLM's, that is replaced
_REASONS = {"COMPLETE": "stop", "STOP_SEQUENCE": "stop", "MAX_TOKENS": "length", "TOOL_CALL": "tool_calls"}


def parsed(chunk: dict[str, Any]) -> Any:
    """One chunk, in the shape of LiteLLM's others. Raises ProviderError (server) for an answer that failed."""
    kind, delta, reason = chunk.get("type"), chunk.get("delta") or {}, None
    message, usage, piece = delta.get("message") or {}, None, Piece()
    if kind == "content-delta":
        piece = Piece(message["content"].get("text"), message["content"].get("thinking"))
    elif kind in ("tool-call-start", "tool-call-delta"):
        piece = Piece(tool_calls=[{**message["tool_calls"], "index": chunk["index"]}])
    elif kind == "message-end":
        said = str(delta.get("finish_reason"))
        if (reason := _REASONS.get(said)) is None:
            raise ProviderError(Kind.SERVER, str(delta.get("error") or f"ended with {said}"))
        usage = _usage(delta.get("usage") or {})
    choice = SimpleNamespace(index=0, delta=piece, finish_reason=reason)
    return SimpleNamespace(id=chunk.get("id"), choices=[choice], usage=usage)


def _usage(counted: dict[str, Any]) -> dict[str, Any] | None:
    """In OpenAI's words."""
    if not (tokens := counted.get("tokens")):
        return None
    asked, answered = int(tokens.get("input_tokens") or 0), int(tokens.get("output_tokens") or 0)
    usage: dict[str, Any] = {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
    }
    cached = counted.get("cached_tokens")
    return usage | ({"prompt_tokens_details": {"cached_tokens": int(cached)}} if cached else {})
