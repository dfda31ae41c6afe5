"""What a soak takes for whole, and what for broken."""

import pytest

from bench.soak.visit import Broken, check

OPENAI = (
    b'data: {"choices":[{"index":0,"delta":{"content":" tick"},"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
SSE = (
    b'data: {"type":"text-delta","content":" tick","source":"fake","seq":2}\n\n'
    b'data: {"type":"finish","source":"fake","seq":3}\n\n'
)
UI = (
    b'data: {"type":"text-delta","id":"0","delta":" tick"}\n\n'
    b'data: {"type":"finish","messageMetadata":{}}\n\ndata: [DONE]\n\n'
)
WHOLE = {"openai": OPENAI, "sse": SSE, "ui": UI}
ERRORS = {
    "openai": b'data: {"error":{"message":"cut"}}\n\n',
    "sse": b'data: {"type":"error","error":"cut","seq":3}\n\n',
    "ui": b'data: {"type":"error","errorText":"cut"}\n\n',
}


@pytest.mark.parametrize("format", WHOLE)
def test_a_whole_answer(format: str) -> None:
    check(WHOLE[format], format, 1)


@pytest.mark.parametrize("format", WHOLE)
def test_a_token_too_few(format: str) -> None:
    with pytest.raises(Broken, match="1 tokens of 2"):
        check(WHOLE[format], format, 2)


@pytest.mark.parametrize("format", WHOLE)
def test_no_end(format: str) -> None:
    cut = WHOLE[format].split(b"\n\n")[0] + b"\n\n"
    with pytest.raises(Broken, match="its end is ''"):
        check(cut, format, 1)


@pytest.mark.parametrize("format", WHOLE)
def test_a_marked_error_is_an_end_of_its_own(format: str) -> None:
    broken = WHOLE[format].split(b"\n\n")[0] + b"\n\n" + ERRORS[format]
    check(broken, format, 1, "error")
    with pytest.raises(Broken):
        check(broken, format, 1)


def test_two_ends_are_none() -> None:
    with pytest.raises(Broken):
        check(SSE + ERRORS["sse"], "sse", 1)
