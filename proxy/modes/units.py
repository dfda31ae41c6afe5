"""Where text may be cut: between grapheme clusters, and where a character, a word, a sentence or a line ends.

Where a cut falls depends on the text alone, not on the pieces in which it comes.
"""

import re
from typing import ClassVar

import regex

_CLUSTER = regex.compile(r"\X")  # https://unicode.org/reports/tr29/#Grapheme_Cluster_Boundaries
_RUN = re.compile(r"[A-Za-z]+|.", re.DOTALL)
_LINE_END = ("\n", "\r", "\u0085", "\u2028", "\u2029")


def clusters(text: str, start: int, *, runs: bool = False) -> tuple[list[str], str]:
    """What a reader takes for characters, from `start`: those that are complete, and the last one if it may still grow.

    With `runs`, letters of English that follow each other come as one.
    """
    rest = text[start:]
    plain = _is_plain(rest)
    found = list(rest) if plain and not runs else (_RUN if plain else _CLUSTER).findall(rest)
    if not found or found[-1].endswith("\n"):
        return found, ""
    return found, found.pop()


def _is_plain(text: str) -> bool:
    """Each of its characters is a cluster, as in nearly all of English; that is told much faster."""
    return text.isascii() and "\r" not in text


class Unit:
    """Told one cluster after the other, says where units end: before it, or after it.

    What it says before a cluster holds for whatever that may grow to, unless it is a blank. `runs`: it says nothing
    between two letters of English, so that they may come as one cluster.
    """

    runs: ClassVar[bool] = True

    def ends_before(self, cluster: str) -> bool:
        return False

    def ends_after(self, cluster: str) -> bool:
        return False


class Characters(Unit):
    runs = False

    def ends_after(self, cluster: str) -> bool:
        return True


class Lines(Unit):
    """With their line breaks."""

    def ends_after(self, cluster: str) -> bool:
        return cluster.endswith(_LINE_END)


# Scripts that are written without blanks between words.
_DENSE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")


class Words(Unit):
    """What stands between blanks, with the blanks that follow; in a script without blanks, each character.

    Punctuation belongs to what it follows: "Hello, " is one, "\u4f60\u597d\uff0c" (hello and a comma) are two.
    """

    # What is in it so far: anything at all, a letter or digit, one of a dense script; and whether a blank was last.
    _said = _letter = _dense = _blank = False

    def ends_before(self, cluster: str) -> bool:
        if cluster.isspace():
            self._blank = True
            return False
        dense = not cluster.isascii() and _DENSE.match(cluster) is not None
        letter = dense or cluster[0].isalnum()
        ends = (self._said and self._blank) or (self._letter and dense) or (self._dense and letter)
        if ends:
            self._letter = self._dense = False
        self._said, self._blank = True, False
        self._letter |= letter
        self._dense |= dense
        return ends


_CLOSES = regex.compile(
    r"(?![\p{Ps}\p{Pi}])\p{Sentence_Break=Close}"
)  # https://unicode.org/reports/tr29/#Sentence_Boundaries
_STOPS = regex.compile(r"\p{Sentence_Break=STerm}")


class Sentences(Unit):
    """Up to a full stop, `!`, `?` and the like, the quotes and brackets it closes, and the blanks that follow.

    A line break ends one too. A `.` does not if a small letter follows, or if nothing but a number comes before it.
    """

    # What is in it so far: anything at all, a letter; and what was last: a stop, blanks, a line break among them.
    _said = _letter = _blank = _broken = False
    _stop = ""

    def ends_before(self, cluster: str) -> bool:
        if cluster.isspace():
            self._blank = True
            self._broken |= cluster.endswith(_LINE_END)
            return False
        stop = self._stop_of(cluster)
        if self._stop and not self._blank and (stop or _CLOSES.match(cluster)):
            self._stop = stop or self._stop
            return False
        ends = self._ends(cluster)
        if ends:
            self._letter = False
        self._said, self._blank, self._broken = True, False, False
        self._letter |= cluster[0].isalpha()
        self._stop = stop
        return ends

    def _stop_of(self, cluster: str) -> str:
        """The stop that `cluster` is, if it may end this sentence."""
        first = cluster[0]
        if first in ".\u2026":
            return first if self._letter else ""
        return first if _STOPS.match(first) else ""

    def _ends(self, following: str) -> bool:
        if not self._said or self._broken or not self._stop:
            return self._said and self._broken
        if self._stop in (".", "\u2026"):
            return self._blank and not following[0].islower()
        return self._blank or not self._stop.isascii()  # where there are no blanks, none is needed
