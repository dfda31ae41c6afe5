"""What the guide's tests have in common: one way to ask the streaming API, and to listen."""

from typing import Any

from proxy import Event, Messages, TextDelta
from tests.server import Server
from tests.sse_reader import streaming

HI: Messages = [{"role": "user", "content": "hi"}]

Heard = list[dict[str, Any]]


async def heard(server: Server, **fields: Any) -> Heard:
    """All events of one answer of `POST /api/streaming/chat`, as JSON."""
    async with streaming(server.url, **fields) as reader:
        while not reader.events or reader.events[-1]["type"] not in ("finish", "error", "abort"):
            await reader.next()
        return reader.events


def pieces(events: Heard | list[Event], source: str = "") -> list[str]:
    """The pieces of text in them, of one source or of all."""
    told = [event if isinstance(event, dict) else _shown(event) for event in events]
    return [it["content"] for it in told if it["type"] == "text-delta" and source in ("", it["source"])]


def _shown(event: Event) -> dict[str, Any]:
    if isinstance(event, TextDelta):
        return {"type": "text-delta", "content": event.content, "source": event.source}
    return {"type": "other"}
