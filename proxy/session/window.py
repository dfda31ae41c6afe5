"""How much of a conversation fits a model's window: sizes, guessed from bytes, and what gives way."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from proxy.adapter import Messages, Tools
from proxy.session.messages import Message, bounded, instructions, is_system, paired, results_in, up_to_the_call

FRAME = 12  # bytes that a message counts for beyond what it says: vendors put three or four tokens around each
MEDIA = 6_000  # bytes that an image, a sound or a file counts for, however large: 1,500 tokens by the first guess
SURE = 0.9  # of the window: the rest is for what the guess gets wrong
MOST_FOR_ANSWER = 4096  # tokens kept free for an answer that names no number of them
UNKNOWN = 512 * 1024  # bytes of a conversation where nobody knows the window: about 128,000 tokens

_FIRST_GUESS = (250.0, 1000.0)  # tokens, bytes
_LEAST, _MOST = 0.1, 1.0  # tokens a byte
_KEPT = 0.9  # of what was learnt before, each time more is learnt


class Size(NamedTuple):
    """`media`: how many images, sounds and files are among it; nobody can guess their tokens."""

    bytes: int
    media: int = 0


def size_of(messages: Sequence[Message], tools: Tools | None = None) -> Size:
    """What messages and tools come to in UTF-8, all media being of one size."""
    size, media = len(msgspec.json.encode(tools)) if tools else 0, 0
    for message in messages:
        size += FRAME
        for name, value in message.items():
            if isinstance(value, str):
                size += _length(value)
            elif name == "content" and isinstance(value, list):
                texts = [part.get("text") if isinstance(part, dict) else None for part in value]
                size += sum(_length(text) for text in texts if isinstance(text, str))
                media += sum(not isinstance(text, str) for text in texts)
            elif value:
                size += len(msgspec.json.encode(value))
    return Size(size + media * MEDIA, media)


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


class Estimate:
    """Tokens a byte at one provider: a guess, corrected by the usage that comes back, long prompts counting for more.

    What languages and tokenizers differ by is a factor of three; a provider serves one mix of them, more or less.
    """

    def __init__(self) -> None:
        self._tokens, self._bytes = _FIRST_GUESS

    @property
    def tokens_per_byte(self) -> float:
        return self._tokens / self._bytes

    def learn(self, size: Size, tokens: int) -> None:
        """`tokens` were billed for a prompt of `size`. One with media says nothing about text."""
        if tokens > 0 and size.bytes > 0 and not size.media:
            sane = min(max(tokens, _LEAST * size.bytes), _MOST * size.bytes)
            self._tokens = _KEPT * self._tokens + sane
            self._bytes = _KEPT * self._bytes + size.bytes

    def room(self, window: int | None, fields: Mapping[str, Any], tools: Tools | None = None) -> int:
        """Bytes that messages may have (none at all, if negative) in a `window` of so many tokens.

        The answer's room is left free: what `fields`, those of the request, ask for, or a quarter of the window.
        """
        left = float(UNKNOWN)
        if window is not None:
            asked = fields.get("max_completion_tokens") or fields.get("max_tokens")
            left = (SURE * window - (asked or min(window // 4, MOST_FOR_ANSWER))) / self.tokens_per_byte
        return int(left) - size_of((), tools).bytes


def trimmed(old: Messages, new: Messages, room: int) -> Messages:
    """A conversation and the messages that go on with it, in at most `room` bytes (as `size_of` counts them).

    Whole exchanges of `old` give way, the oldest first; an exchange begins where a user speaks. Never give way: `new`,
    the exchange whose calls it answers, and system messages, of which those that only repeat what is in force stand
    once, and of those that changed all the time the first and the newest 31. If all that has no room, it is what is
    left. Vendors' rules hold: no call without its results, no result without its call.
    """
    old = paired(up_to_the_call(old, new), new)
    told = set(instructions([*old, *new]))
    kept = set(bounded(sorted(at for at in told if at < len(old))))
    standing = [old[at] for at in kept]
    news = [it for at, it in enumerate(new, len(old)) if not is_system(it) or at in told or it not in standing]
    room -= size_of([*standing, *news]).bytes
    needed = bool(results_in(new))
    for exchange in reversed(_exchanges(old)):
        room -= size_of([old[at] for at in exchange]).bytes
        if room < 0 and not needed:
            break
        needed = False
        kept.update(exchange)
    return [old[at] for at in sorted(kept)] + news


def _exchanges(messages: Messages) -> list[list[int]]:
    """Where the messages of each exchange stand; system messages belong to none."""
    found: list[list[int]] = []
    before = ""
    for at, message in enumerate(messages):
        if is_system(message):
            continue
        role = message.get("role", "")
        if not found or (role == "user" and before != "user"):
            found.append([])
        found[-1].append(at)
        before = role
    return found
