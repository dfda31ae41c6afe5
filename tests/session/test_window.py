"""What fits a model's window: whole exchanges, the newest first, and nothing that a vendor would refuse."""

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.session.messages import Message, calls_of, is_result, is_system
from proxy.session.window import FRAME, MEDIA, UNKNOWN, Estimate, Size, size_of, trimmed
from tests.session.test_messages import calls, result, says, system, user

ROOMY = 1 << 30


def texts(messages: list[Message]) -> list[Any]:
    return [message["content"] for message in messages]


# Sizes


def test_text_counts_in_utf8() -> None:
    assert size_of([{"role": "user", "content": "hello"}]).bytes == len("user" + "hello") + FRAME
    assert size_of([user("漢字")]).bytes - size_of([user("")]).bytes == 6
    assert size_of([user("\ud800")]).bytes > 0, "what no vendor would take still has a size"


def test_media_count_the_same_whatever_their_size() -> None:
    for size in (10, 1_000_000):
        parts = [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * size}},
            {"type": "input_audio", "input_audio": {"data": "A" * size, "format": "wav"}},
        ]
        got = size_of([{"role": "user", "content": parts}])
        assert got.media == 2
        assert 2 * MEDIA < got.bytes < 2 * MEDIA + 100


def test_calls_and_tools_count() -> None:
    assert size_of([calls("a")]).bytes > size_of([says("")]).bytes + 50
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert size_of([], [tool]).bytes == len('{"type":"function","function":{"name":"f","parameters":{}}}') + 2


@pytest.mark.parametrize("odd", [None, 5, [], [None], [5], ["x"], [{}], [{"text": 5}], {"a": 1}])
def test_whatever_a_client_sends_has_a_size(odd: Any) -> None:
    assert size_of([{"role": "user", "content": odd, "tool_calls": odd}, {}]).bytes > 0


# Tokens a byte


def test_the_guess_is_corrected_by_what_is_billed() -> None:
    estimate = Estimate()
    assert estimate.tokens_per_byte == 0.25
    for _ in range(30):
        estimate.learn(Size(10_000), 5_000)
    assert estimate.tokens_per_byte == pytest.approx(0.5, rel=0.02)
    for _ in range(60):
        estimate.learn(Size(10_000), 3_000)
    assert estimate.tokens_per_byte == pytest.approx(0.3, rel=0.02), "what it learnt does not stand for ever"


def test_a_short_prompt_says_little() -> None:
    estimate = Estimate()
    estimate.learn(Size(20), 20)
    assert estimate.tokens_per_byte < 0.3


def test_what_says_nothing_about_text_is_not_learnt() -> None:
    estimate = Estimate()
    for size, tokens in ((Size(10_000, media=1), 9_000), (Size(10_000), 0), (Size(10_000), -5), (Size(0), 50)):
        estimate.learn(size, tokens)
    assert estimate.tokens_per_byte == 0.25


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(-10, 10**12)), max_size=50))
def test_the_estimate_stays_sane(billed: list[tuple[int, int]]) -> None:
    estimate = Estimate()
    for size, tokens in billed:
        estimate.learn(Size(size), tokens)
        assert 0.1 <= estimate.tokens_per_byte <= 1.0


# Room


def test_room_is_left_for_the_answer() -> None:
    room = Estimate().room
    assert room(8000, {}) == (7200 - 2000) * 4, "a quarter"
    assert room(100_000, {}) == (90_000 - 4096) * 4
    assert room(8000, {"max_tokens": 500}) == (7200 - 500) * 4
    assert room(8000, {"max_tokens": 500, "max_completion_tokens": 700}) == (7200 - 700) * 4
    assert room(8000, {"max_tokens": None}) == (7200 - 2000) * 4
    assert room(8000, {"max_tokens": 9000}) < 0


def test_tools_take_their_room() -> None:
    tools = [{"type": "function", "function": {"name": "f" * 1000}}]
    estimate = Estimate()
    assert estimate.room(8000, {}) - estimate.room(8000, {}, tools) == size_of([], tools).bytes


def test_a_window_that_nobody_knows_has_a_bound() -> None:
    assert Estimate().room(None, {"max_tokens": 5}) == UNKNOWN


# What gives way


def talk(exchanges: int) -> list[Message]:
    return [message for at in range(exchanges) for message in (user(f"q{at}"), says(f"a{at}"))]


def room_for(messages: list[Message]) -> int:
    return size_of(messages).bytes


def test_what_has_room_stays() -> None:
    assert trimmed(talk(3), [user("new")], ROOMY) == [*talk(3), user("new")]
    assert trimmed([], [user("new")], ROOMY) == [user("new")]


def test_the_oldest_exchange_goes_first_and_whole() -> None:
    new, old = [user("new")], talk(5)
    assert trimmed(old, new, room_for([*old, *new])) == [*old, *new]
    assert trimmed(old, new, room_for([*old, *new]) - 1) == [*old[2:], *new]
    assert trimmed(old, new, room_for([*old[4:], *new])) == [*old[4:], *new]
    assert trimmed(old, new, room_for([*old[5:], *new])) == [*old[6:], *new], "half an exchange is none"


def test_what_is_new_stays_whatever_its_size() -> None:
    new = [user("long " * 1000), says("?"), user("new")]
    assert trimmed(talk(5), new, 10) == new
    assert trimmed(talk(5), new, -10) == new


def test_an_old_exchange_that_would_fit_does_not_jump_the_queue() -> None:
    old = [user("short"), says("."), user("long " * 100), says("."), user("last"), says(".")]
    assert texts(trimmed(old, [user("new")], 300)) == ["last", ".", "new"]


def test_instructions_stay_where_they_were() -> None:
    old = [system("a"), *talk(2), system("b"), *talk(2)]
    assert texts(trimmed(old, [user("new")], 10)) == ["a", "b", "new"]
    room = room_for([system("a"), system("b"), *talk(1), user("new")])
    assert texts(trimmed(old, [user("new")], room)) == ["a", "b", "q1", "a1", "new"]
    assert trimmed(old, [user("new")], ROOMY) == [*old, user("new")]


def test_instructions_that_come_with_every_request_stand_once() -> None:
    old = [system("s"), user("q"), says("a"), system("s"), user("q"), says("a")]
    got = trimmed(old, [system("s"), user("new")], ROOMY)
    assert texts(got) == ["s", "q", "a", "q", "a", "new"]


def test_instructions_that_change_all_the_time_do_not_add_up() -> None:
    old = [message for at in range(1000) for message in (system(f"It is {at} o'clock."), *talk(1))]
    got = trimmed(old, [system("It is late."), user("new")], 4000)
    told = [message["content"] for message in got if is_system(message)]
    assert (len(told), told[0], told[-2:]) == (33, "It is 0 o'clock.", ["It is 999 o'clock.", "It is late."])
    assert texts(got)[-1] == "new"
    assert {"q0", "a0"} <= set(texts(got)), "they left room for something else"


def test_a_call_stays_with_its_results() -> None:
    old = [*talk(1), user("weather?"), calls("a", "b"), result("a"), result("b"), says("fine")]
    new = [user("new")]
    assert trimmed(old, new, room_for([*old, *new]) - 1) == [*old[2:], *new]
    assert trimmed(old, new, room_for([*old[3:], *new])) == new


def test_a_result_keeps_its_call_even_without_room() -> None:
    old = [*talk(3), user("weather?"), calls("a")]
    assert trimmed(old, [result("a")], 1) == [user("weather?"), calls("a"), result("a")]
    again = [*old, result("a"), says("wrong"), user("so?"), says("hm")]
    assert trimmed(again, [result("a")], 1) == [user("weather?"), calls("a"), result("a")]
    assert trimmed(old, [system("s"), result("a")], 1) == [user("weather?"), calls("a"), system("s"), result("a")]


def test_an_exchange_begins_where_a_user_speaks() -> None:
    old = [says("welcome"), user("here is a text"), user("and my question"), says("answer"), says("and more")]
    assert texts(trimmed(old, [user("new")], room_for([*old, user("new")]) - 1)) == [*texts(old)[1:], "new"]


# For any conversation

ids = st.sampled_from("abc")
texts_of_any = st.text(max_size=12)
speech = st.one_of(
    texts_of_any.map(user),
    texts_of_any.map(user),
    texts_of_any.map(says),
    st.lists(ids, min_size=1, max_size=3, unique=True).map(lambda made: calls(*made)),
    ids.map(result),
    ids.map(result),
)
conversations = st.lists(st.one_of(speech, st.sampled_from("st").map(system)), max_size=25)
news = st.lists(speech, min_size=1, max_size=4)
rooms = st.integers(-10, 1500)


def in_order(few: list[Message], many: list[Message]) -> bool:
    left = iter(many)
    return all(any(one == other for other in left) for one in few)


def results_behind(at: int, messages: list[Message]) -> set[str]:
    following = (message for message in messages[at + 1 :] if not is_system(message))
    return {message["tool_call_id"] for message in itertools.takewhile(is_result, following)}


@given(conversations, news, rooms)
def test_it_fits_or_is_the_least_there_can_be(old: list[Message], new: list[Message], room: int) -> None:
    before = copy.deepcopy((old, new))
    got, least, most = (trimmed(old, new, each) for each in (room, -1, ROOMY))
    assert size_of(got).bytes <= room or got == least, "over its room, with something that could have gone"
    assert in_order(least, got), "more room, and something is gone"
    assert in_order(got, most), "out of order, or made up"
    assert got[-len(new) :] == new
    assert (old, new) == before, "the caller's messages were changed"


@given(conversations, news, rooms)
def test_no_call_is_without_its_results(old: list[Message], new: list[Message], room: int) -> None:
    got = trimmed(old, new, room)
    made: set[str] = set()
    for at, message in enumerate(got[: -len(new)]):
        if is_result(message):
            assert message["tool_call_id"] in made, "a result without its call"
        elif not is_system(message):
            made = calls_of(message)
            assert made <= results_behind(at, got), "a call without its results"


@given(conversations, st.lists(ids.map(result), min_size=1, max_size=3, unique_by=lambda it: it["tool_call_id"]))
def test_new_results_find_their_call(old: list[Message], new: list[Message]) -> None:
    """However little room there is, if the call was ever made and nobody spoke of something else since."""
    answered = {message["tool_call_id"] for message in new}
    got = trimmed([*old, user(), calls(*answered)], new, room=-1)
    assert [message for message in got if not is_system(message)][-len(new) - 2 :] == [user(), calls(*answered), *new]


@given(conversations, rooms)
def test_every_instruction_is_kept(old: list[Message], room: int) -> None:
    got = trimmed(old, [user("new")], room)
    for text in "st":
        assert (system(text) in got) == (system(text) in old)
    told = [message for message in got if is_system(message)]
    assert all(one != other for one, other in itertools.pairwise(told)), "said twice"


@given(conversations, rooms)
def test_what_is_kept_is_the_end_of_it(old: list[Message], room: int) -> None:
    whole = [message for message in trimmed(old, [user("new")], ROOMY) if not is_system(message)]
    got = [message for message in trimmed(old, [user("new")], room) if not is_system(message)]
    assert got == whole[len(whole) - len(got) :]
    assert len(got) == len(whole) or got[0]["role"] == "user", "it begins in the middle of an exchange"
