"""What proxy/sse.py reads does not depend on how the network cuts it, nor on which line ending the provider likes."""

import re
import time
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import sse
from proxy.sse import SSEDecoder


def decoded(*pieces: bytes) -> list[bytes]:
    decoder = SSEDecoder()
    return [payload for piece in pieces for payload in decoder.feed(piece)]


def cut(stream: bytes, *places: int) -> list[bytes]:
    edges = [0, *places, len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


# name: (stream, the data of its events)
CORPUS = {
    "LF": (b"data: one\n\ndata: two\n\n", [b"one", b"two"]),
    "CR": (b"data: one\r\rdata: two\r\r", [b"one", b"two"]),
    "CRLF": (b"data: one\r\n\r\ndata: two\r\n\r\n", [b"one", b"two"]),
    "endings mixed": (b"data: a\r\n\ndata: b\n\r\ndata: c\r\rdata: d\n\r", [b"a", b"b", b"c", b"d"]),
    "several lines": (b"data: a\r\ndata:b\rdata:  c\n\n", [b"a\nb\n c"]),
    "no space": (b'data:{"a":1}\n\n', [b'{"a":1}']),
    "other fields": (b"event: x\nid: 7\nretry: 9\ndata: a\n\nid: 8\n\nevent: y\n\n", [b"a"]),
    "comments": (b": ping\n\n:\n\n: ping\ndata: a\n: pong\ndata: b\n\n:data: no\n\n", [b"a\nb"]),
    "blank lines": (b"\n\n\r\n\r\r\n\n\ndata: a\n\n\n\n\ndata: b\n\n", [b"a", b"b"]),
    "empty data": (b"data:\n\ndata: \n\ndata\n\n", [b"", b"", b""]),
    "a bare data line": (b"data\ndata: a\ndata\n\n", [b"\na\n"]),
    "names that only begin alike": (b"dat: a\ndatabase: b\nData: c\n data: d\n\n", []),
    "BOM": (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),  # the second is part of a field's name
    "U+2028, U+0085 and U+000B end no line": (
        "data: a\u2028b\u2029c\u0085d\u000be\n\n".encode(),
        ["a\u2028b\u2029c\u0085d\u000be".encode()],
    ),
    "emoji and CJK": (
        "data: \U0001f468\u200d\U0001f469 漢字かな\r\n\r\n".encode(),
        ["\U0001f468\u200d\U0001f469 漢字かな".encode()],
    ),
    "an error of llama.cpp's": (b'error: {"code":400}\n\ndata: [DONE]\n\n', [b'{"error": {"code":400}}', b"[DONE]"]),
    "an event that has not ended": (b"data: a\n\ndata: b\n", [b"a"]),
}
EVERYTHING = b"".join(stream for name, (stream, _) in CORPUS.items() if name != "BOM")


@pytest.mark.parametrize("name", CORPUS)
def test_reads_events(name: str) -> None:
    stream, expected = CORPUS[name]
    assert decoded(stream) == expected, f"{name}: read otherwise in one piece"


@pytest.mark.parametrize("name", CORPUS)
def test_reads_the_same_however_it_is_cut_in_three(name: str) -> None:
    stream, expected = CORPUS[name]
    for places in combinations(range(len(stream) + 1), 2):
        assert decoded(*cut(stream, *places)) == expected, f"{name}: cut at {places} it reads otherwise"


def test_reads_the_same_cut_in_two_or_byte_by_byte() -> None:
    whole = decoded(EVERYTHING)
    for place in range(len(EVERYTHING) + 1):
        assert decoded(*cut(EVERYTHING, place)) == whole, f"cut at {place} it reads otherwise"
    assert decoded(*cut(EVERYTHING, *range(1, len(EVERYTHING)))) == whole, "byte by byte it reads otherwise"


LINES = st.sampled_from(["data: ", "data:", "data", ": x", "id: 1", "", "", "\ufeff", "data: \u2028é漢\U0001f600"])
ENDINGS = st.sampled_from(["\n", "\r", "\r\n"])


@given(st.lists(st.tuples(LINES, ENDINGS), max_size=12), st.data())
def test_reads_as_the_standard_says_however_it_is_cut(lines: list[tuple[str, str]], data: st.DataObject) -> None:
    stream = "".join(line + ending for line, ending in lines).encode()
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    assert decoded(*cut(stream, *places)) == by_the_standard(stream), f"cut at {places} it reads otherwise"


def by_the_standard(stream: bytes) -> list[bytes]:
    """Its steps one by one, on the whole stream; the last line is dropped, since nothing ended it."""
    found, buffer = [], b""
    for line in re.split(b"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))[:-1]:
        if not line:
            found += [buffer[:-1]] if buffer else []
            buffer = b""
        elif line.partition(b":")[0] == b"data":
            buffer += line.partition(b":")[2].removeprefix(b" ") + b"\n"
    return found


def test_an_event_is_given_as_soon_as_its_blank_line_has_begun() -> None:
    for stream in (b"data: a\n\n", b"data: a\r\n\r", b"data: a\r\r"):
        assert decoded(stream) == [b"a"], f"{stream!r} was held back"


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 100)
    assert decoded(b"data: " + b"x" * 94, b"\n\n") == [b"x" * 94], "an event of the largest size was refused"
    with pytest.raises(ValueError, match="more than 100 bytes"):
        decoded(b"data: ", b"x" * 100)


def test_a_large_event_in_small_pieces_takes_time_in_proportion() -> None:
    stream = b"data: " + b"x" * 4_000_000 + b"\n\n"
    began = time.process_time()
    assert decoded(*cut(stream, *range(0, len(stream), 1000))) == [stream[6:-2]]
    took = time.process_time() - began
    assert took < 1, f"4 MB in pieces of 1 KB took {took:.1f} s of CPU: every piece reads all that came before again"
