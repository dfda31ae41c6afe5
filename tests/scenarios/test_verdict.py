"""The judge of the chaos tests notices what it is there for."""

from collections.abc import Callable
from typing import cast

import msgspec
import pytest

from proxy.position import Position
from tests.paced_upstream import Said
from tests.scenarios.returning import Block, ReturningClient
from tests.scenarios.verdict import judge

FIRST, SECOND = Said("s", 1, 3, ""), Said("s", 2, 2, "")
for said in (FIRST, SECOND):
    while not said.complete:
        said.next()


class Client:
    """What a client got of a stream whose producer died after two tokens, and that was begun anew."""

    name, stream_id, recovery = "s", "r-s", "restart"

    def __init__(self) -> None:
        marker = {"type": "data-recovery", "how": "restarted"}
        told = [{"type": "start"}, *map(text, FIRST.tokens[:2]), marker, *map(text, SECOND.tokens), {"type": "finish"}]
        self.blocks = [block(seq, 1 if seq < 4 else 2, fields) for seq, fields in enumerate(told, start=1)]


def text(content: str) -> dict[str, str]:
    return {"type": "text-delta", "content": content}


def block(seq: int, epoch: int, fields: dict[str, str]) -> Block:
    return Block(Position(epoch, seq, f"0000000{epoch}"), msgspec.json.encode(fields))


def verdict(client: Client) -> None:
    judge(cast(ReturningClient, client), [FIRST, SECOND])


def test_a_right_one_is_found_right() -> None:
    verdict(Client())


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda blocks: blocks.pop(2), "has a gap"),
        (lambda blocks: blocks.insert(2, blocks[2]), "has a gap"),
        (lambda blocks: blocks.pop(), "not exactly one end"),
        (lambda blocks: blocks.append(block(8, 2, {"type": "finish"})), "not exactly one end"),
        (lambda blocks: blocks.__setitem__(1, block(2, 1, text(FIRST.tokens[1]))), "where"),
        (lambda blocks: blocks.__setitem__(4, block(5, 2, text(FIRST.tokens[2]))), "where"),
        (lambda blocks: blocks.__setitem__(5, block(6, 2, {"type": "data-quiet"})), "lacks the end"),
        (lambda blocks: blocks.__setitem__(5, block(6, 1, text(SECOND.tokens[1]))), "earlier epoch"),
        (lambda blocks: blocks.__setitem__(3, block(4, 2, {"type": "data-recovery", "how": "failed"})), "failed"),
    ],
    ids=["lost", "twice", "no end", "two ends", "swapped", "old answer", "cut", "past", "failed"],
)
def test_a_wrong_one_is_found_wrong(wrong: Callable[[list[Block]], object], why: str) -> None:
    client = Client()
    wrong(client.blocks)
    with pytest.raises(AssertionError, match=why):
        verdict(client)
