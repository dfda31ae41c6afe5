"""Several sources in one stream of OpenAI's: each of them is a choice, its index its place among the sources.

What OpenAI's SDKs make of a stream (openai-python, `lib/streaming/chat`) decides how: the first chunk must hold choices
0, 1 ... in order, or they lose one or mix two up; a `role` that comes twice is joined to itself; the first id counts.
So one chunk of ours opens all the choices, and of the sources' own chunks the id, the date and the role are left out.
"""

from typing import Any

import msgspec

from proxy.chunk import to_json
from proxy.events import ENDS, Event, Finish, SourceEnd
from proxy.heading import Heading
from proxy.wire.openai import ChunkEncoder


class ChoicesEncoder(ChunkEncoder):
    """Writes one stream of several sources; they are the choices, in their order."""

    def __init__(self, heading: Heading):
        super().__init__(heading)
        self._places = {name: place for place, name in enumerate(heading.sources)}
        uncounted = msgspec.structs.replace(heading, include_usage=False)
        self._writers = {name: ChunkEncoder(uncounted) for name in heading.sources}
        self._opened = False

    def encode(self, event: Event) -> bytes:
        return self._frames(event)

    def chunks(self, event: Event) -> list[bytes]:
        found = [] if self._opened else [self._opening()]
        self._opened = True
        if type(event) in ENDS:
            for name, writer in self._writers.items():
                found += [self._placed(name, chunk) for chunk in writer.chunks(event)]
            if isinstance(event, Finish) and event.usage:
                found += self._built(event.usage)
        elif event.source in self._writers:
            found += [self._placed(event.source, chunk) for chunk in self._writers[event.source].chunks(event)]
            if isinstance(event, SourceEnd) and event.reason != "finish":
                found.append(self._failed(event))
        else:
            found += super().chunks(event)
        return found

    def _opening(self) -> bytes:
        start = {"role": "assistant", "content": ""}
        return self._with(
            {"index": place, "delta": start, "finish_reason": None, "weir": {"source": name}}
            for name, place in self._places.items()
        )

    def _failed(self, end: SourceEnd) -> bytes:
        said = {"source": end.source, "message": end.message, "code": end.code or "stopped"}
        return self._with([{"index": self._places[end.source], "delta": {}, "finish_reason": "error", "weir": said}])

    def _placed(self, source: str, chunk: bytes) -> bytes:
        """The chunk of one source as a chunk of this stream."""
        fields: dict[str, Any] = msgspec.json.decode(chunk)
        fields |= {"id": self._id, "created": self._created}
        fields.pop("usage", None)  # the sum comes at the end
        for choice in fields.get("choices") or ():
            choice["index"] = self._places[source]
            (choice.get("delta") or {}).pop("role", None)
        if not fields.get("choices"):
            fields["weir"] = {"source": source}  # nothing else says whose it is
        return to_json(fields)
