"""What is read of a vendor's chunks, piece by piece, against what LiteLLM's parser says of them as a whole."""

import importlib
import json
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from proxy.adapters import litellm_anthropic, litellm_gemini
from proxy.adapters.litellm import _import_litellm
from proxy.adapters.litellm_chunks import Piece, TranslatedReader, VendorReader
from proxy.errors import Kind, ProviderError
from proxy.events import Event, Start, TextDelta, ToolInputDelta, Usage

Chunk = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def library() -> None:
    _import_litellm()


def anthropic(json_mode: bool = False) -> tuple[Any, TranslatedReader]:
    """LiteLLM's parser, and a reader that asks it."""
    chat = importlib.import_module("litellm.llms.anthropic.chat.handler")
    names = {"a_b": "a/b"}
    parser = chat.ModelResponseIterator(None, sync_stream=False, json_mode=json_mode, tool_name_reverse_map=names)
    return parser, TranslatedReader(VendorReader("m"), parser, litellm_anthropic._Answer(parser).pieces)


def gemini() -> tuple[Any, TranslatedReader]:
    chat = importlib.import_module("litellm.llms.vertex_ai.gemini.vertex_and_google_ai_studio_gemini")
    parser = chat.ModelResponseIterator(None, sync_stream=False, logging_obj=SimpleNamespace(optional_params={}))
    pieces = litellm_gemini._Answer(chat.VertexGeminiConfig()).pieces
    return parser, TranslatedReader(VendorReader("m"), parser, pieces)


def read(reader: TranslatedReader, chunks: list[Chunk]) -> list[Event]:
    events = [event for chunk in chunks for event in reader.read(json.dumps(chunk).encode())]
    for event in events:
        if isinstance(event, Start):  # what is drawn by lot, and the time
            event.id, event.created = event.id.partition("chatcmpl-")[0], 0
    return events + reader._reader.finish()


def whole(made: tuple[Any, TranslatedReader], chunks: list[Chunk]) -> list[Event]:
    """The events, where each chunk is translated as a whole."""
    made[1]._pieces = lambda chunk, runs: None
    return read(made[1], chunks)


def block(kind: str, *deltas: Chunk, **fields: Any) -> list[Chunk]:
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": kind, **fields}}
    said = [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
    return [start, *said, {"type": "content_block_stop", "index": 0}]


def message(*blocks: list[Chunk], **usage: Any) -> list[Chunk]:
    began = {"id": "msg", "model": "claude", "usage": {"input_tokens": 12, "cache_read_input_tokens": 5}}
    ended = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9, **usage}}
    said = [chunk for each in blocks for chunk in each]
    return [{"type": "message_start", "message": began}, {"type": "ping"}, *said, ended, {"type": "message_stop"}]


def text(said: str) -> Chunk:
    return {"type": "text_delta", "text": said}


def arguments(said: str) -> Chunk:
    return {"type": "input_json_delta", "partial_json": said}


MESSAGES = {
    "text": message(block("text", text("Hel"), text(""), text("lo"), text=""), block("text", text="!")),
    "tools": message(
        block("tool_use", arguments(""), arguments('{"x"'), arguments(": 1}"), id="t1", name="a_b", input={}),
        block("tool_use", id="t2", name="none", input={}),
        block("server_tool_use", arguments('{"query": "?"}'), id="t3", name="web_search", input={}),
        block("web_search_tool_result", arguments("{}"), tool_use_id="t3", content=[]),
    ),
    "thoughts": message(
        block(
            "thinking",
            {"type": "thinking_delta", "thinking": "Two and two"},
            {"type": "signature_delta", "signature": "c2ln"},
            thinking="",
            signature="",
        ),
        block("redacted_thinking", data="aGlkZGVu"),
        block("text", text("4"), {"type": "citations_delta", "citation": {"cited_text": "x"}}, text=""),
    ),
    "counts": message(block("text", text("a"), text=""), input_tokens=13, service_tier="standard"),
    "news": [*message(block("text", {"type": "new_delta", "new": 1}, text("a"), text="")), {"type": "new"}],
    "json": message(block("tool_use", arguments('{"x": 1}'), id="t1", name="json_tool_call", input={})),
}


@pytest.mark.parametrize("json_mode", [False, True])
@pytest.mark.parametrize("name", MESSAGES)
def test_pieces_of_anthropics_are_what_the_whole_says(name: str, json_mode: bool) -> None:
    chunks = MESSAGES[name]
    assert read(anthropic(json_mode)[1], chunks) == whole(anthropic(json_mode), chunks)


def said(*parts: Chunk, index: int | None = 0, counted: int | None = None, **fields: Any) -> Chunk:
    candidate = {"content": {"parts": list(parts), "role": "model"}, **({} if index is None else {"index": index})}
    chunk: Chunk = {"candidates": [candidate | fields], "modelVersion": "gemini", "responseId": "r"}
    if counted is not None:
        chunk["usageMetadata"] = {"promptTokenCount": 12, "candidatesTokenCount": counted, "totalTokenCount": 99}
    return chunk


A, B = {"text": "a"}, {"text": "b"}
STOP: Chunk = {"finishReason": "STOP"}
CONTENTS = {
    "text": [said(A, counted=1), said(A, B, counted=2), said(B, counted=3, **STOP)],
    "counted before the end": [said(A), said(A, counted=2), said(B, **STOP)],
    "counted by the whole": [said(A), said(A, counted=2), said(A, counted=3, safetyRatings=[]), said(B, **STOP)],
    "counted after the end": [said(A, counted=1), said(B, counted=2, **STOP), said(A, counted=4)],
    "thoughts": [
        said(A | {"thought": True}, counted=1),
        said(B | {"thought": True}, A, counted=2),
        said(A | {"thoughtSignature": "c2ln"}, counted=3),
        said(B, **STOP),
    ],
    "calls": [said(A), said({"functionCall": {"name": "f", "args": {"x": 1}}}, counted=2), said(A, **STOP)],
    "choices": [said(A), said(B, index=1), said(A, counted=1), said(B, index=1, **STOP), said(A, **STOP)],
    "no index": [said(A, index=None), said(B, index=None, counted=1), said(A, index=None, **STOP)],
    "sound and pictures": [
        said(A),
        said({"text": "data:audio/wav;base64,AAAA"}),
        said({"inlineData": {"mimeType": "text/plain", "data": "AAAA"}}),
        said(A, **STOP),
    ],
    "nothing": [said(A), {"candidates": [{"index": 0}]}, {"candidates": []}, said(), said(A, **STOP)],
    "blocked": [{"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 1}}],
}


@pytest.mark.parametrize("name", CONTENTS)
def test_pieces_of_geminis_are_what_the_whole_says(name: str) -> None:
    chunks = CONTENTS[name]
    events = read(gemini()[1], chunks)
    if name != "calls":  # whose ids are drawn by lot
        assert events == whole(gemini(), chunks)
    counted = [chunk["usageMetadata"] for chunk in chunks if "usageMetadata" in chunk]
    used = [event.output_tokens for event in events if isinstance(event, Usage)]
    assert used == [count.get("candidatesTokenCount", 0) for count in counted[-1:]]


def test_a_token_is_not_translated_as_a_whole() -> None:
    """Nearly all chunks are text, and a whole one takes ten times as long."""
    for (_, reader), chunks, wholes in ((anthropic(), MESSAGES["text"], 6), (gemini(), CONTENTS["text"], 2)):
        translate = reader._translate = Mock(side_effect=reader._translate)
        assert [event for event in read(reader, chunks) if isinstance(event, TextDelta)]
        assert translate.call_count == wholes


# What is no chunk


@pytest.mark.parametrize("payload", [b"{", b"[]", b"7", b'{"type": "message_start", "message": "\xff"}', b"null"])
def test_what_is_no_chunk_is_garbled(payload: bytes) -> None:
    for _, reader in (anthropic(), gemini()):
        with pytest.raises(ProviderError) as caught:
            reader.read(payload)
        assert caught.value.kind is Kind.GARBLED


def test_done_says_nothing() -> None:
    for _, reader in (anthropic(), gemini()):
        assert reader.read(b"[DONE]") == []


def test_every_call_has_an_id() -> None:
    """LiteLLM gives none to the second of Ollama's."""
    reader = VendorReader("m")
    calls = [{"id": None, "index": at, "function": {"name": "f", "arguments": "{}"}} for at in (0, 1)]
    choice = SimpleNamespace(index=0, delta=Piece(tool_calls=calls), finish_reason="stop")
    events = reader.read(SimpleNamespace(choices=[choice]))
    ids = [event.id for event in events if isinstance(event, ToolInputDelta)]
    assert None not in ids
    assert len(set(ids)) == 2


def test_log_probabilities_of_a_translated_vendor_stand_beside_its_text() -> None:
    probable = {"content": [{"token": "a"}]}
    choice = SimpleNamespace(index=0, delta=Piece("a"), logprobs=probable, finish_reason=None)
    said = VendorReader("m").read(SimpleNamespace(choices=[choice], usage=None))
    assert said[1:] == [TextDelta(content="a", choice={"logprobs": probable})], "a Vendor event would end each piece"


def test_an_empty_event_of_a_translated_vendor_is_a_heartbeat() -> None:
    parser = SimpleNamespace(chunk_parser=lambda _: SimpleNamespace(choices=[], usage=None))
    assert TranslatedReader(VendorReader("m"), parser, lambda *_: None).read(b"") == []
