"""Messages in OpenAI's shape: which of them belong together, and which a vendor would refuse."""

from collections.abc import Iterable, Sequence
from itertools import chain, groupby, islice, takewhile
from typing import Any

from proxy.adapter import Messages

SAID_BY = "said_by"  # of a kept message with more in it than OpenAI has: the id of the provider that said so
MOST_INSTRUCTIONS = 32  # system messages of the past: the first, and the newest

Message = dict[str, Any]


def is_system(message: Message) -> bool:
    return message.get("role") in ("system", "developer")


def is_result(message: Message) -> bool:
    return message.get("role") == "tool"


def calls_of(message: Message) -> set[str]:
    """The ids of the tool calls that `message` makes. A client's message may hold anything at all."""
    calls = message.get("tool_calls")
    return {_id(call.get("id")) for call in calls if isinstance(call, dict)} if isinstance(calls, list) else set()


def results_in(messages: Iterable[Message]) -> set[str]:
    """The ids of the calls that `messages` begin by answering; system messages may stand in between."""
    spoken = (message for message in messages if not is_system(message))
    return {_id(message.get("tool_call_id")) for message in takewhile(is_result, spoken)}


def _id(value: Any) -> str:
    return value if isinstance(value, str) else ""


def up_to_the_call(old: Messages, new: Messages) -> Messages:
    """`old`, as far as `new` goes on from it: results go on from their call, however often they are sent."""
    if answered := results_in(new):
        for at in range(len(old) - 1, -1, -1):
            if answered & calls_of(old[at]):
                behind = takewhile(lambda message: is_result(message) or is_system(message), old[at + 1 :])
                return old[: at + 1] + [it for it in behind if not _answers(it, answered)]
    return old


def paired(old: Messages, new: Messages) -> Messages:
    """`old`, to be followed by `new`, with every call's results behind it, and no result without its call.

    A call that nobody answered goes, for vendors refuse it: the reader spoke of something else.
    """
    kept: Messages = []
    behind: set[str] = set()  # the calls whose results may come
    for at, message in enumerate(old):
        if is_result(message):
            kept += [message] if _answers(message, behind) else []
        elif is_system(message):
            kept.append(message)
        elif calls := calls_of(message):
            behind = calls & results_in(chain(islice(old, at + 1, None), new))
            kept += _with_calls(message, behind)
        else:
            behind = set()
            kept.append(message)
    return kept


def _answers(message: Message, calls: set[str]) -> bool:
    return is_result(message) and _id(message.get("tool_call_id")) in calls


def _with_calls(message: Message, ids: set[str]) -> Messages:
    """`message` with no other calls than these; nothing, if it neither calls nor says anything then."""
    calls = [call for call in message["tool_calls"] if isinstance(call, dict) and _id(call.get("id")) in ids]
    rest = {name: value for name, value in message.items() if name != "tool_calls"}
    if calls:
        return [message if len(calls) == len(message["tool_calls"]) else {**rest, "tool_calls": calls}]
    # The thoughts led to those calls, and some vendors refuse them without.
    return [_told_to("", rest) if SAID_BY in rest else rest] if rest.get("content") else []


def told_to(provider_id: str, messages: Messages) -> Messages:
    """`messages` for that provider. Thoughts and signatures of another one it would not understand, and may refuse."""
    return [_told_to(provider_id, message) if SAID_BY in message else message for message in messages]


def _told_to(provider_id: str, message: Message) -> Message:
    if message[SAID_BY] == provider_id:
        return {name: value for name, value in message.items() if name != SAID_BY}
    told = {name: value for name, value in message.items() if name in ("role", "content")}
    if isinstance(calls := message.get("tool_calls"), list):
        told["tool_calls"] = [_of_openai(call) for call in calls if isinstance(call, dict)]
    return told


def _of_openai(call: Message) -> Message:
    """The call as OpenAI has it."""
    known = {name: value for name, value in call.items() if name in ("id", "type", "function")}
    if isinstance(function := call.get("function"), dict):
        known["function"] = {name: value for name, value in function.items() if name in ("name", "arguments")}
    return known


def instructions(messages: Sequence[Message]) -> list[int]:
    """Where the system messages stand that change what is in force: a client may send the same ones every time."""
    in_force: Messages = []
    found: list[int] = []
    for system, run in groupby(range(len(messages)), lambda at: is_system(messages[at])):
        if system:
            said: Messages = []
            fresh = []
            for at in run:
                fresh += [] if messages[at] in said or messages[at] in in_force else [at]
                said.append(messages[at])
            found += fresh
            in_force = said if fresh else in_force
    return found


def bounded(found: list[int]) -> list[int]:
    """The first of `found` and the newest, so that instructions which change every time do not add up for ever."""
    return found if len(found) <= MOST_INSTRUCTIONS else found[:1] + found[1 - MOST_INSTRUCTIONS :]
