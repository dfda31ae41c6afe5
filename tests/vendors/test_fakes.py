"""The fakes are as good as the vendors: the vendors' own SDKs take them for real."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.vendors.anthropic import FakeAnthropic
from tests.vendors.fake import KEY, FakeVendor
from tests.vendors.gemini import FakeGemini

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-clients/bin/python"
Answers = dict[str, Any]
SAID = {"text": "Hello", "tools": "Let me look.", "thinking": "4"}
ANTHROPICS = {
    "bad_request": ("BadRequestError", 400),
    "unauthorized": ("AuthenticationError", 401),
    "missing": ("NotFoundError", 404),
    "rate_limit": ("RateLimitError", 429),
    "server_error": ("InternalServerError", 500),
    "overloaded": ("OverloadedError", 529),
    "error_midway": ("APIStatusError", 200),
    "text:wrong": ("AuthenticationError", 401),
}
GOOGLES = {
    "bad_request": ("ClientError", 400),
    "unauthorized": ("ClientError", 401),
    "missing": ("ClientError", 404),
    "rate_limit": ("ClientError", 429),
    "server_error": ("ServerError", 500),
    "overloaded": ("ServerError", 503),
    "error_midway": ("ServerError", 503),
    "text:wrong": ("ClientError", 400),
}


async def ask(vendor: FakeVendor, sdk: str, *scenarios: str) -> Answers:
    """What the SDK makes of the scenarios: scenario -> what its script prints."""
    assert PYTHON.exists(), f"{PYTHON} is missing: the SDKs live in an environment of their own, `make test` builds it"
    # -P: the script's own folder holds files named like the SDKs.
    command = (str(PYTHON), "-P", str(HERE / f"sdk_{sdk}.py"), vendor.url("").rstrip("/"), KEY, *scenarios)
    run = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        printed, complaints = await run.communicate()
    assert run.returncode == 0, f"the {sdk} SDK's script failed:\n{complaints.decode()}"
    return {said["scenario"]: said for said in map(json.loads, printed.splitlines())}


@pytest.fixture(scope="module")
async def anthropics(anyio_backend: str) -> Answers:
    """All that is asked of Anthropic's SDK, in one process: it takes seconds to import."""
    async with FakeAnthropic() as vendor:
        return await ask(vendor, "anthropic", "text", "long", "tools", "thinking", "cut", *ANTHROPICS)


@pytest.fixture(scope="module")
async def googles(anyio_backend: str) -> Answers:
    async with FakeGemini() as vendor:
        return await ask(vendor, "gemini", "text", "long", "tools", "thinking", "cut", *GOOGLES)


def test_anthropics_sdk_reads_every_answer(anthropics: Answers) -> None:
    for scenario, text in SAID.items():
        blocks = anthropics[scenario]["content"]
        assert "".join(block["text"] for block in blocks if block["type"] == "text") == text
    assert anthropics["text"]["stop_reason"] == "end_turn"
    assert anthropics["long"]["stop_reason"] == "max_tokens"
    assert anthropics["text"]["usage"]["cache_read_input_tokens"] == 5
    calls = [block for block in anthropics["tools"]["content"] if block["type"] == "tool_use"]
    assert [(call["id"], call["name"], call["input"]) for call in calls] == [
        ("toolu_01A", "get_weather", {"city": "Paris"}),
        ("toolu_01B", "get_time", {"zone": "CET"}),
    ]
    thought, hidden, _ = anthropics["thinking"]["content"]
    assert (thought["thinking"], thought["signature"]) == ("Two and two make four.", "c2lnbmF0dXJl")
    assert hidden["type"] == "redacted_thinking"


def test_anthropics_sdk_raises_its_own_error_for_every_refusal(anthropics: Answers) -> None:
    assert {asked: (anthropics[asked]["error"], anthropics[asked]["status"]) for asked in ANTHROPICS} == ANTHROPICS


def test_googles_sdk_reads_every_answer(googles: Answers) -> None:
    for scenario, text in SAID.items():
        parts = googles[scenario]["parts"]
        assert "".join(part.get("text", "") for part in parts if not part.get("thought")) == text
    ends = [googles[scenario]["finish_reason"] for scenario in ("text", "long", "tools", "thinking")]
    assert ends == ["STOP", "MAX_TOKENS", "STOP", "STOP"]
    assert googles["text"]["usage"]["cached_content_token_count"] == 5
    calls = [part["function_call"] for part in googles["tools"]["parts"] if "function_call" in part]
    assert [(call["name"], call["args"]) for call in calls] == [
        ("get_weather", {"city": "Paris"}),
        ("get_time", {"zone": "CET"}),
    ]
    thoughts = [part["text"] for part in googles["thinking"]["parts"] if part.get("thought")]
    assert thoughts == ["Two and two make four."]


def test_googles_sdk_raises_its_own_error_for_every_refusal(googles: Answers) -> None:
    assert {asked: (googles[asked]["error"], googles[asked]["status"]) for asked in GOOGLES} == GOOGLES


def test_sdks_take_a_cut_stream_for_an_answer(anthropics: Answers, googles: Answers) -> None:
    """Which is why Weir must not: neither SDK says a word."""
    assert anthropics["cut"]["stop_reason"] is None
    assert googles["cut"]["finish_reason"] is None
