"""Which encoder a request gets."""

from typing import Any

import msgspec
import pytest

from proxy.events import Finish, Recovered, Start, TextDelta
from proxy.wire import Encoder
from proxy.wire.formats import encoder_for
from tests.journeys import request
from tests.wire.test_encoder import data_of


def asked(**fields: Any) -> Any:
    return request("a", stream=True, **fields)


def written(encoder: Encoder) -> list[Any]:
    events = [Start(source="b"), TextDelta(content="B", source="b"), Finish()]
    return data_of(b"".join(map(encoder.encode, events)))


@pytest.mark.parametrize(
    ("format", "seen"),
    [("sse", {"type": "start", "source": "b", "seq": 0}), ("ui", {"type": "start", "messageId": "r1"})],
)
def test_the_format_asked_for(format: Any, seen: Any) -> None:
    assert written(encoder_for(format, asked().heading()))[0] == seen


def test_several_sources_are_told_apart() -> None:
    one, two = asked(), asked(weir={"providers": ["a", "b"]})
    assert [choice["index"] for choice in written(encoder_for("openai", one.heading()))[0]["choices"]] == [0]
    assert [choice["index"] for choice in written(encoder_for("openai", two.heading()))[0]["choices"]] == [0, 1]
    labelled = [part for part in written(encoder_for("ui", two.heading())) if "providerMetadata" in part]
    assert [part["providerMetadata"] for part in labelled] == [{"weir": {"source": "b"}}]
    assert "providerMetadata" not in str(written(encoder_for("ui", one.heading())))


def test_what_reads_it_is_known_to_the_encoder() -> None:
    heading = msgspec.structs.replace(asked().heading(), ui=7)
    encoder = encoder_for("ui", heading)
    said = [Start(), TextDelta(content="a"), Recovered(how="restarted")]
    assert b"reset-step" in b"".join(map(encoder.encode, said))
