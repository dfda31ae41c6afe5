"""What the log keeps of a chunk: all that it said, and the same whenever it is read."""

import itertools
import json
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxy.events import Event, Finish, TextDelta, Usage, Vendor
from proxy.heading import Heading
from proxy.record import read
from proxy.recorder import Recorder
from proxy.streaming_request import Format
from proxy.testing import chunk
from proxy.wire.formats import encoder_for
from proxy.wire.openai import ChunkEncoder
from proxy.wire.openai_fold import Fold
from tests.batches import write
from tests.wire.test_openai import changed
from tests.wire.test_openai import read as events_of

HEADING = Heading("r1", "asked", ["asked"], include_usage=True, created=1)
USED = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "queue_time": 0.25}


def bared(events: Sequence[Event]) -> list[Event]:
    recorder = Recorder()
    return [recorder.bare(event) for event in events]


def replayed(events: Sequence[Event]) -> list[Event]:
    """What a reader of the log gets, each event from a batch of its own."""
    return [again for seq, event in enumerate(events, 1) for again in read(*write([event]), seq)]


def said(it: Any) -> Any:
    """Without what says nothing: nulls, empty texts, and padding."""
    if isinstance(it, dict):
        found = {name: said(value) for name, value in it.items() if name != "obfuscation"}
        return {name: value for name, value in found.items() if value not in (None, "", {}, [])}
    return [said(value) for value in it] if isinstance(it, list) else it


def chunks_of(events: Sequence[Event]) -> list[Any]:
    encoder = ChunkEncoder(HEADING)
    return [json.loads(text) for event in events for text in encoder.chunks(event)]


def folded(events: Sequence[Event]) -> Any:
    fold = Fold(ChunkEncoder(HEADING))
    for event in events:
        fold.add(event)
    return said(fold.completion())


def test_what_perplexity_says_again_with_every_token_is_kept_once() -> None:
    sources, words = [{"url": "https://example.org/" + "x" * 2000}], ["a ", "b ", "c "] * 20
    chunks = [chunk({"content": word}, search_results=sources) for word in words]
    for at, each in enumerate(chunks):
        each["choices"][0]["message"] = {"role": "assistant", "content": "".join(words[: at + 1])}
    events = bared(relayed(*chunks, chunk(finish="stop", search_results=[*sources, {"url": "more"}])))
    source, array = write(events)
    assert len(array) < 10_000, "the log grows with the square of the answer"
    whole = folded(read(source, array, len(events)))
    assert whole["search_results"] == [*sources, {"url": "more"}]
    assert whole["choices"][0]["message"]["content"] == "".join(words)


def relayed(*chunks: Any) -> list[Event]:
    return [*events_of(*chunks), Finish()]


@pytest.mark.parametrize("numbered", [{}, {"index": 0}])
def test_calls_that_are_not_numbered_keep_what_is_theirs(numbered: dict[str, int]) -> None:
    calls = [{**numbered, "id": id, "function": {"name": "f", "arguments": "{}"}, "sign": id} for id in "abc"]
    events = relayed(chunk({"tool_calls": calls[:2]}), chunk({"tool_calls": calls[2:]}), chunk(finish="stop"))
    kept = folded(replayed(bared(events)))["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["sign"]) for call in kept] == [("a", "a"), ("b", "b"), ("c", "c")]


def test_plain_text_is_a_string_and_no_more() -> None:
    events = bared(events_of(chunk({"role": "assistant"}), chunk({"content": "a"}), chunk({"content": "é"})))
    assert write(events[1:]) == ("", '["a","é"]'.encode())


BESIDE = {
    "the chunk": lambda delta: chunk(delta, x_groq={"id": "req_1"}, citations=["https://a.example"]),
    "the choice": lambda delta: _with_choice(chunk(delta), logprobs={"content": [{"token": "a"}]}, stop_token=7),
    "the delta": lambda delta: chunk({**delta, "annotations": [{"a": 1}], "mood": "sunny"}),
    "all three": lambda delta: _with_choice(chunk({**delta, "mood": "sunny"}, x=1), score=0.5),
}
CALL = {"id": "c", "type": "function"}
SAYING: dict[str, dict[str, Any]] = {
    "a role": {"role": "assistant", "content": ""},
    "a text": {"content": "a"},
    "a role and a text": {"role": "assistant", "content": "a"},
    "a thought": {"reasoning_content": "a"},
    "a thought and a text": {"reasoning_content": "b", "content": "a"},
    "a thought by its other name": {"reasoning": "b"},
    "a thought by both names": {"reasoning": "b", "reasoning_content": "b"},
    "a tool call": {"tool_calls": [{"index": 0, **CALL, "function": {"name": "f"}}]},
    "two tool calls": {
        "tool_calls": [
            {"index": 0, **CALL, "function": {"name": "f", "arguments": "{"}, "extra_content": {"google": {"s": "x"}}},
            {"index": 1, **CALL, "function": {"name": "g", "arguments": "", "strict": True}},
        ]
    },
    "a custom tool call": {"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "f"}}]},
    "a refusal": {"refusal": "no"},
    "a refusal and a role": {"role": "assistant", "refusal": "no"},
    "sound": {"audio": {"id": "audio_1", "data": "AAAA"}},
    "parts of a text": {"content": [{"type": "text", "text": "a"}]},
    "everything": {"role": "assistant", "content": "a", "reasoning": "b", "refusal": "no", "images": [{"url": "u"}]},
    "nothing": {},
}


def _with_choice(whole: Any, **fields: Any) -> Any:
    whole["choices"][0] |= fields
    return whole


@pytest.mark.parametrize("where", BESIDE)
@pytest.mark.parametrize("saying", SAYING)
@pytest.mark.parametrize("finish", [None, "stop"])
def test_nothing_that_stood_in_a_chunk_is_lost_or_said_twice(where: str, saying: str, finish: str | None) -> None:
    odd = BESIDE[where](SAYING[saying])
    odd["choices"][0]["finish_reason"] = finish
    begun, rest = chunk({"role": "assistant"}), [] if finish else [chunk(finish="stop")]
    for events in (relayed(begun, odd, *rest), relayed(odd, *rest)):
        assert folded(bared(events)) == folded(events), f"{saying}, and more in {where}, is not told as it came"
        assert all(event.raw is None or type(event) is Vendor for event in bared(events)), "the bytes are kept, too"


def test_a_chunk_of_the_vendors_own_is_kept_as_it_came() -> None:
    odd = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    (event,) = replayed(bared(events_of(odd)))
    assert event.raw == json.dumps(odd).encode()


def test_usage_that_came_beside_the_last_choice_stays_there() -> None:
    events = bared(relayed(chunk({"content": "a"}), chunk(finish="stop", usage=USED)))
    assert [it["usage"] for it in chunks_of(events) if "usage" in it] == [USED]


def test_what_stood_beside_the_usage_is_told_with_it() -> None:
    events = bared(events_of(chunk({"content": "a"}), chunk(choices=[], usage=USED, timings={"ms": 7})))
    last = chunks_of(events)[-1]
    assert (last["usage"], last["timings"], last["choices"]) == (USED, {"ms": 7}, [])


def test_the_sum_at_the_end_is_told_without_the_chunk_it_came_in() -> None:
    used = Usage(input_tokens=3, output_tokens=2, details=USED, raw=b"{}", parts=1)
    finish = bared([Finish(usage=used)])[0]
    assert isinstance(finish, Finish)
    assert finish.usage == Usage(input_tokens=3, output_tokens=2, details=USED)


def test_what_every_chunk_repeats_is_kept_once() -> None:
    facts: dict[str, Any] = {"system_fingerprint": "fp", "service_tier": "default"}
    texts = [chunk({"content": text}, **facts) for text in "abc"]
    events = bared(events_of(chunk({"role": "assistant"}, **facts), *texts))
    assert write(events[1:])[1] == b'["a","b","c"]', "it is kept with every token"
    assert all(facts.items() <= it.items() for it in chunks_of(events)), "it is no longer told with every chunk"
    other = bared(events_of(chunk({"role": "assistant"}, **facts), chunk({"content": "a"}, system_fingerprint="new")))
    assert chunks_of(other)[-1]["system_fingerprint"] == "new"


def test_of_a_text_that_a_mode_cut_anew_what_stood_beside_it_is_not_kept_twice() -> None:
    last = chunk({"reasoning_content": "b", "content": "a", "annotations": [1]}, finish="stop")
    last = _with_choice(last, logprobs={"content": [{"token": "a"}]}, stop_reason="eos")
    events = [*events_of(chunk({"role": "assistant"})), *events_of(last)[1:], Finish()]
    cut = [
        TextDelta(content="a", choice={"logprobs": {"content": [{"token": "a"}]}, "delta": {"annotations": [1]}})
        if isinstance(event, TextDelta)
        else event
        for event in events
    ]
    assert folded(bared(cut)) == folded(events)


def test_an_event_of_our_own_is_kept_as_it_is() -> None:
    own = changed(events_of(chunk({"content": "a"}))[-1])
    assert bared([own]) == [own]


# Whatever a provider may send.

SLOW = [HealthCheck.too_slow]  # the machine, where it is busy

TEXTS = st.text(st.characters(codec="utf-8"), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
CALLS = st.builds(
    dict.__or__,
    st.sampled_from([CALL, {}]),
    st.fixed_dictionaries(
        {"index": st.integers(0, 1), "function": st.fixed_dictionaries({"arguments": TEXTS})},
        optional={"extra_content": st.fixed_dictionaries({"s": TEXTS})},
    ),
)
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.none() | TEXTS,
        "reasoning_content": TEXTS,
        "tool_calls": st.lists(CALLS, max_size=2, unique_by=lambda call: call["index"]),
        "refusal": st.none() | TEXTS,
        "annotations": st.lists(st.integers(), max_size=2),
        "x_delta": JSON,
    },
)
CHOICES = st.fixed_dictionaries(
    {"index": st.integers(0, 2), "delta": DELTAS},
    optional={"logprobs": st.fixed_dictionaries({"content": st.lists(st.integers(), max_size=2)}), "x_choice": JSON},
)


def audible(choices: list[Any]) -> list[Any]:
    """Of several choices in one chunk, each says something."""
    more = {"content": "a"} if len(choices) > 1 else {}
    return [{**choice, "delta": {**choice["delta"], **more}} for choice in choices]


CHUNKS = st.fixed_dictionaries(
    {"choices": st.lists(CHOICES, max_size=2, unique_by=lambda choice: choice["index"]).map(audible)},
    optional={"usage": st.none() | st.just(USED), "system_fingerprint": TEXTS, "x_chunk": JSON},
)
HEAD = {name: it for name, it in chunk().items() if name != "choices"}


@example([{"choices": [{"index": 1, "delta": {}}], "x_chunk": False}, {"choices": [], "x_chunk": None}])
@given(st.lists(CHUNKS, max_size=6))
@settings(max_examples=60, suppress_health_check=SLOW)
def test_a_recorded_stream_says_what_its_chunks_said(chunks: list[dict[str, Any]]) -> None:
    ends = [{"index": index, "delta": {}, "finish_reason": "stop"} for index in range(3)]
    events = relayed(chunk({"role": "assistant"}), *({**HEAD, **it} for it in chunks), {**HEAD, "choices": ends})
    recorded = replayed(bared(events))
    assert folded(recorded) == folded(events)
    told = [[it["usage"] for it in chunks_of(each) if it.get("usage")] for each in (recorded, events)]
    assert told[0] == told[1], "the client sees other usage"


@given(st.lists(CHUNKS, max_size=6), st.data())
@settings(max_examples=30, suppress_health_check=SLOW)
def test_live_and_replayed_a_stream_is_the_same_bytes(chunks: list[dict[str, Any]], data: st.DataObject) -> None:
    live = bared(relayed(*({**HEAD, **it} for it in chunks)))
    for seq, event in enumerate(live, 1):
        event.seq = seq
    edges = sorted({0, len(live), *data.draw(st.lists(st.integers(0, len(live)), max_size=3))})
    again = [it for start, end in itertools.pairwise(edges) for it in read(*write(live[start:end]), end)]
    for format in get_args(Format):
        one, other = encoder_for(format, HEADING), encoder_for(format, HEADING)
        assert list(map(one.encode, live)) == list(map(other.encode, again)), f"{format} differs"


# A text is not read again where all around it was said before. That must not show.

AROUND: dict[str, Any] = {
    "the same": lambda text: chunk({"content": text}),
    "padded": lambda text: chunk({"content": text}, obfuscation="aB3"),
    "padded otherwise": lambda text: chunk({"content": text}, obfuscation="Zz"),
    "padded with what is none": lambda text: chunk({"content": text}, obfuscation='x","mood":"sunny'),
    "padded, and more after it": lambda text: chunk({"content": text}, obfuscation="aB3", x="1"),
    "more in the chunk": lambda text: chunk({"content": text}, x=1),
    "another fingerprint": lambda text: chunk({"content": text}, system_fingerprint="other"),
    "more in the choice": lambda text: _with_choice(chunk({"content": text}), logprobs={"content": [text]}),
    "more in the delta": lambda text: chunk({"content": text, "mood": text}),
    "another choice": lambda text: chunk({"content": text}, index=1),
    "a thought and a text": lambda text: chunk({"reasoning_content": text, "content": text}),
    "the end": lambda text: chunk({"content": text}, finish="stop"),
}


def compact(it: Any) -> bytes:
    """As OpenAI writes it."""
    return json.dumps(it, separators=(",", ":"), ensure_ascii=False).encode()


SAID = st.sampled_from(["a", "b", 'a","mood":"b', "model", "m", "\\", "é", "a\n\nb", ',"obfuscation":"x"}'])


@given(st.lists(st.tuples(st.sampled_from(sorted(AROUND)), SAID), min_size=1, max_size=8))
@settings(max_examples=300, suppress_health_check=SLOW)
def test_what_a_text_says_does_not_depend_on_the_texts_before_it(told: list[tuple[str, str]]) -> None:
    first = [chunk({"role": "assistant"}, index=index) for index in (0, 1)]
    events = events_of(*map(compact, [*first, *(AROUND[around](text) for around, text in told)]))
    bare = bared(events)
    for at, event in enumerate(events[2:], 2):
        alone = bared([*events[:2], event])[-1] if event.parts == 1 else bare[at]
        assert bare[at] == alone, f"{event.raw!r} is kept otherwise, after {told}"


def test_a_chunk_that_differs_in_its_text_alone_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    texts = [chunk({"content": text}, obfuscation="x" * len(text)) for text in ("a", "bc", "déf")]
    begun, one, *rest = events_of(*map(compact, [chunk({"role": "assistant"}), *texts]))
    recorder.bare(begun)
    recorder.bare(one)
    monkeypatch.setattr(recorder, "_taken_out", lambda event: pytest.fail(f"{event.raw!r} is read"))
    assert [recorder.bare(event) for event in rest] == [TextDelta(content="bc"), TextDelta(content="déf")]


def test_what_is_known_by_now_decides_what_is_said_again() -> None:
    recorder = Recorder()
    first, second = events_of(*[chunk({"content": "a"}, system_fingerprint="fp")] * 2)[1:]
    for known, told in (("fp", None), ("other", {"system_fingerprint": "fp"})):
        recorder.know({"system_fingerprint": known})
        assert [recorder.bare(event).chunk for event in (first, second)] == [told, told]


def test_an_empty_text_after_a_list_of_parts_takes_nothing_away() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
    chunks = [chunk({"content": ""}), chunk({"content": parts}), chunk({"content": "hi"}), chunk({"content": ""})]
    said = folded([*events_of(*chunks, chunk(finish="stop")), Finish()])["choices"][0]["message"]
    assert said["content"] == [*parts, {"type": "text", "text": "hi"}]


@pytest.mark.parametrize("at", ["start", "end"])
def test_thoughts_in_details_alone_are_recorded_once(at: str) -> None:
    details = {"reasoning_details": [{"type": "reasoning.text", "text": "hm", "index": 0}]}
    chunks = [chunk({"role": "assistant"} | (details if at == "start" else {})), chunk({"content": "hi"})]
    chunks.append(chunk(details if at == "end" else {}, finish="stop"))
    events = [*events_of(*chunks), Finish()]
    assert folded(replayed(bared(events))) == folded(events)
