"""Batches of events as the log of a durable stream keeps them."""

from collections.abc import Sequence

from proxy.events import Event
from proxy.record import Draft


def write(events: Sequence[Event]) -> tuple[str, bytes]:
    """Whose they are, and the array."""
    draft = Draft()
    for event in events:
        draft.add(event)
    return draft.write()
