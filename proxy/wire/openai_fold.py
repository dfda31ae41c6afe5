"""A stream folded into one chat.completion: an answer that is not streamed is the same stream, read to its end."""

import copy
from typing import Any

import msgspec

from proxy.chunk import TextAlone, add_choice, add_delta
from proxy.events import Event, Finish, Recovered, Steered, TextDelta, Usage
from proxy.wire.openai import ChunkEncoder, is_bare, usage_fields


class Fold:
    """Adds up the chunks of one stream, fields it has no name for included."""

    def __init__(self, encoder: ChunkEncoder):
        self._encoder = encoder
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: Usage | None = None
        self._before: dict[int, dict[str, Any]] = {}  # the choices, when the reader steered last
        self._text_alone = TextAlone()
        self._one = type(encoder) is ChunkEncoder  # whose choices are its events' own

    def add(self, event: Event) -> None:
        if type(event) is TextDelta and self._is_known(event):  # nearly all of them
            add_delta(self._choices[event.index]["message"], {"content": event.content})
            return
        if isinstance(event, Finish):
            self._usage = event.usage
        elif isinstance(event, Steered):
            self._before = copy.deepcopy(self._choices)
        elif isinstance(event, Recovered) and event.how == "restarted":
            self._choices = copy.deepcopy(self._before)
        for chunk in self._encoder.chunks(event):
            self._add(msgspec.json.decode(chunk))

    def completion(self) -> dict[str, Any]:
        """The whole answer: https://platform.openai.com/docs/api-reference/chat/object"""
        choices = [self._choices[index] for index in sorted(self._choices)]
        for choice in choices:
            message = {"content": None, **choice["message"]}
            for call in message.get("tool_calls") or ():
                call.pop("index", None)
                call["type"] = call.get("type") or "function"  # Mistral and Azure AI Foundry leave it out of a stream
            if message.get("tool_calls"):
                message["content"] = message["content"] or None
            choice["message"] = {**message, "role": message.get("role") or "assistant"}
        whole = {**self._head, "object": "chat.completion", "choices": choices}
        return whole | ({"usage": usage_fields(self._usage)} if self._usage else {})

    def _is_known(self, event: TextDelta) -> bool:
        """Whether it is a piece of text and nothing else, so that its chunk need be neither written nor read."""
        if not self._one or event.index not in self._choices or self._encoder.held:
            return False
        raw = event.raw
        if raw is None or event.choice != {}:
            return is_bare(event)
        if self._text_alone.again(raw, event.index, event.content):
            return True
        self._text_alone.learn(raw, event.index, event.content)
        return False

    def _add(self, chunk: dict[str, Any]) -> None:
        chunk.pop("usage", None)  # Finish has it, whether or not the client asked for the chunk
        chunk.pop("obfuscation", None)  # pads chunks
        for choice in chunk.pop("choices", None) or ():
            index = choice.pop("index", 0)
            whole = self._choices.setdefault(index, {"index": index, "message": {}, "finish_reason": None})
            add_delta(whole["message"], choice.pop("delta", None) or {})
            add_choice(whole, choice)
        self._head |= {name: it for name, it in chunk.items() if not self._head.get(name) or _grows(it)}


def _grows(value: Any) -> bool:
    """Whether the last one counts: llama.cpp's timings, Perplexity's sources."""
    return bool(value) and isinstance(value, dict | list)
