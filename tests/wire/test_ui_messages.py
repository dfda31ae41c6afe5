"""What an AI SDK chat sends, as OpenAI's messages. What the SDK's own clients send: `tests/clients/test_ai_sdk.py`."""

from typing import Any

import pytest

from proxy.errors import RequestError
from proxy.wire.ui_messages import continued, read_messages

PNG = "data:image/png;base64,AAAA"


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said, "state": "done"}


def file(kind: str, url: str, **more: Any) -> dict[str, Any]:
    return {"type": "file", "mediaType": kind, "url": url, **more}


def tool(state: str, call: str = "c", **more: Any) -> dict[str, Any]:
    return {"type": "tool-get-weather", "toolCallId": call, "state": state, "input": {"x": 1}, **more}


def message(role: str, *parts: Any) -> dict[str, Any]:
    return {"id": f"the-{role}s", "role": role, "parts": [*parts], "metadata": {"any": 1}}


def user(*parts: Any) -> Any:
    (one,) = read_messages([message("user", *parts)])
    assert one["role"] == "user"
    return one["content"]


def assistant(*parts: Any) -> list[dict[str, Any]]:
    return read_messages([message("assistant", *parts)])


def call(call: str = "c", name: str = "get-weather", arguments: str = '{"x":1}') -> dict[str, Any]:
    return {"id": call, "type": "function", "function": {"name": name, "arguments": arguments}}


def called(*calls: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": [*calls]}


def result(content: str, call: str = "c") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call, "content": content}


def test_who_said_what() -> None:
    conversation = [message("system", text("Be "), text("brief.")), message("user", text("hi"))]
    assert read_messages([*conversation, message("assistant", {"type": "step-start"}, text("Hel"), text("lo"))]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello"},
    ]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (file("image/png", PNG), {"type": "image_url", "image_url": {"url": PNG}}),
        (file("image/*", "https://a.test/b"), {"type": "image_url", "image_url": {"url": "https://a.test/b"}}),
        (
            file("audio/wav", "data:audio/wav;base64,AAAA"),
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        ),
        (
            file("application/pdf", "data:application/pdf;base64,AAAA", filename="a.pdf"),
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
        ),
    ],
)
def test_files_of_a_user(part: Any, expected: Any) -> None:
    assert user(part, {"type": "data-mood", "data": 1}) == [expected]
    assert user(part, text("this?")) == [expected, {"type": "text", "text": "this?"}]


def test_a_step_is_a_message_and_then_what_its_tools_said() -> None:
    step = {"type": "step-start"}
    said = assistant(
        step,
        text("I look."),
        tool("output-available", "c", output={"degrees": 24}),
        tool("output-available", "d", output="warm"),
        step,
        text("Warm."),
    )
    assert said == [
        called(call("c"), call("d"), content="I look."),
        result('{"degrees":24}', "c"),
        result("warm", "d"),
        {"role": "assistant", "content": "Warm."},
    ]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (tool("output-available", output=None), "null"),
        (tool("output-available"), "null"),
        (tool("output-error", errorText="no network"), "no network"),
        (tool("output-denied", approval={"id": "a", "approved": False, "reason": "too dear"}), "too dear"),
        (tool("approval-responded", approval={"id": "a", "approved": False}), "Tool call execution denied."),
    ],
)
def test_what_became_of_a_call(part: Any, said: str) -> None:
    assert assistant(part) == [called(call()), result(said)]


def test_a_call_without_arguments_and_a_tool_the_page_did_not_know() -> None:
    cut = {"type": "tool-f", "toolCallId": "c", "state": "output-error", "errorText": "bad"}
    assert assistant(cut) == [called(call("c", "f", "{}")), result("bad")]
    dynamic = {"type": "dynamic-tool", "toolName": "search", "toolCallId": "c", "state": "output-available"}
    assert assistant({**dynamic, "input": {}, "output": 1}) == [called(call("c", "search", "{}")), result("1")]


@pytest.mark.parametrize("state", ["input-streaming", "input-available", "approval-requested"])
def test_a_call_that_nobody_has_answered_is_left_out(state: str) -> None:
    """Every vendor refuses a call without its result."""
    assert assistant(text("I look."), tool(state)) == [{"role": "assistant", "content": "I look."}]
    assert assistant(tool(state)) == []


def test_thoughts_go_back_only_as_their_vendor_wants_them() -> None:
    block = {"type": "thinking", "thinking": "hm", "signature": "s"}
    signed = {"weir": {"source": "a", "extra": {"thinking_blocks": [block], "content": "not this"}}}
    thoughts = [
        {"type": "reasoning", "text": "hm", "providerMetadata": signed},
        {"type": "reasoning", "text": "so", "providerMetadata": {"weir": {"extra": {"thinking_blocks": [{"n": 2}]}}}},
        {"type": "reasoning", "text": "well", "providerMetadata": {"openai": {"x": 1}}},
    ]
    assert assistant(*thoughts, text("Yes.")) == [
        {"role": "assistant", "content": "Yes.", "thinking_blocks": [block, {"n": 2}]}
    ]
    assert assistant(*thoughts) == []


def test_what_the_user_said_while_the_answer_came() -> None:
    ours = {"type": "data-steer", "data": {"instruction": "in English"}}
    theirs = {"type": "steering-message", "id": "s", "parts": [text("in English")]}
    for steered in (ours, theirs):
        assert assistant(text("Il é"), steered, text("It was")) == [
            {"role": "assistant", "content": "Il é"},
            {"role": "user", "content": "in English"},
            {"role": "assistant", "content": "It was"},
        ]


def test_of_several_sources_the_first_whole_one_counts() -> None:
    def by(source: str, **more: Any) -> dict[str, Any]:
        return {"providerMetadata": {"weir": {"source": source, **more}}}

    def ended(source: str, reason: str) -> dict[str, Any]:
        return {"type": "data-source-end", "data": {"source": source, "reason": reason}}

    thought = {"type": "reasoning", "text": "hm", **by("b", extra={"thinking_blocks": [1]})}
    called_by_b = tool("output-available", output=1, callProviderMetadata={"weir": {"source": "b"}})
    parts = [text("I am ") | by("a"), thought, text("I am B.") | by("b"), called_by_b, text("A.") | by("a")]
    assert assistant(*parts) == [{"role": "assistant", "content": "I am A."}]
    assert assistant(*parts, ended("b", "error"), ended("a", "finish")) == [{"role": "assistant", "content": "I am A."}]
    of_b = {**called(call(), content="I am B."), "thinking_blocks": [1]}
    assert assistant(*parts, ended("a", "error"), ended("b", "finish")) == [of_b, result("1")]
    assert assistant(*parts, ended("a", "error"), ended("b", "error")) == [{"role": "assistant", "content": "I am A."}]


def test_of_several_choices_the_first_counts() -> None:
    second = text("Oslo") | {"providerMetadata": {"weir": {"index": 1}}}
    assert assistant(text("Rome"), second) == [{"role": "assistant", "content": "Rome"}]


def test_what_an_answer_that_was_begun_anew_had_said_is_taken_back() -> None:
    def recovered(how: str) -> dict[str, Any]:
        return {"type": "data-recovery", "data": {"how": how, "after": 0, "reason": "cut"}}

    step, new = {"type": "step-start"}, [{"role": "assistant", "content": "new"}]
    assert assistant(step, text("la "), recovered("restarted"), step, text("new")) == new
    assert assistant(step, recovered("restarted"), text("new")) == new, "as AI SDK 7 has taken it back"
    assert assistant(step, text("ne"), recovered("continued"), text("w")) == new


def test_parts_that_are_no_messages_are_left_out() -> None:
    others = [{"type": "source-url", "url": "https://a.test"}, {"type": "data-x", "data": 1}, file("image/png", PNG)]
    assert assistant(*others, {"type": "something-new"}, text("a")) == [{"role": "assistant", "content": "a"}]


WRONG: list[tuple[Any, str]] = [
    ("hi", "messages"),
    ([{"role": "user", "content": "hi"}], "messages[0].parts"),
    ([message("robot", text("a"))], "messages[0].role"),
    ([message("user", text("a")), message("user")], "messages[1].parts"),
    ([message("user", {"type": "text"})], "messages[0].parts[0].text"),
    ([message("user", {"type": "text", "text": 1})], "messages[0].parts[0].text"),
    ([message("system", {"type": "text"})], "messages[0].parts[0].text"),
    ([message("user", text("a"), file("application/pdf", "https://a.test/a.pdf"))], "messages[0].parts[1].url"),
    ([message("user", file("image/png", "blob:https://a.test/1"))], "messages[0].parts[0].url"),
    ([message("user", {"type": "file", "mediaType": "image/png"})], "messages[0].parts[0].url"),
    ([message("assistant", {"type": "text"})], "messages[0].parts[0].text"),
    ([message("assistant", {"type": "tool-f", "state": "output-available"})], "messages[0].parts[0].toolCallId"),
]


@pytest.mark.parametrize(("messages", "param"), WRONG)
def test_what_is_wrong_is_named(messages: Any, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_messages(messages)
    assert caught.value.param == param
    assert caught.value.message.startswith(param)


def test_an_answer_goes_on_with_the_clients_last_message_if_that_is_an_answer() -> None:
    """Under another id the chat would show it as a second answer."""
    asked = [message("user", text("hi"))]
    assert continued([*asked, message("assistant", tool("output-available"))]) == "the-assistants"
    assert continued(asked) == ""
    assert continued([]) == ""
