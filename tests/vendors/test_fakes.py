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
SAID = {"text": "Hello", "tools": "Let me look.", "thinking": "4"}


async def ask(vendor: FakeVendor, sdk: str, *scenarios: str, key: str = KEY) -> dict[str, Any]:
    """What the SDK makes of the scenarios: scenario -> what its script prints."""
    assert PYTHON.exists(), f"{PYTHON} is missing: the SDKs live in an environment of their own, `make test` builds it"
    # -P: the script's own folder holds files named like the SDKs.
    command = (str(PYTHON), "-P", str(HERE / f"sdk_{sdk}.py"), vendor.url("").rstrip("/"), key, *scenarios)
    run = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        printed, complaints = await run.communicate()
    assert run.returncode == 0, f"the {sdk} SDK's script failed:\n{complaints.decode()}"
    return {said["scenario"]: said for said in map(json.loads, printed.splitlines())}


async def test_anthropics_sdk_reads_every_answer() -> None:
    async with FakeAnthropic() as vendor:
        answers = await ask(vendor, "anthropic", "text", "long", "tools", "thinking")
    for scenario, text in SAID.items():
        blocks = answers[scenario]["content"]
        assert "".join(block["text"] for block in blocks if block["type"] == "text") == text
    assert answers["text"]["stop_reason"] == "end_turn"
    assert answers["long"]["stop_reason"] == "max_tokens"
    assert answers["text"]["usage"]["cache_read_input_tokens"] == 5
    calls = [block for block in answers["tools"]["content"] if block["type"] == "tool_use"]
    assert [(call["id"], call["name"], call["input"]) for call in calls] == [
        ("toolu_01A", "get_weather", {"city": "Paris"}),
        ("toolu_01B", "get_time", {"zone": "CET"}),
    ]
    thought, hidden, _ = answers["thinking"]["content"]
    assert (thought["thinking"], thought["signature"]) == ("Two and two make four.", "c2lnbmF0dXJl")
    assert hidden["type"] == "redacted_thinking"


async def test_anthropics_sdk_raises_its_own_error_for_every_refusal() -> None:
    expected = {
        "bad_request": ("BadRequestError", 400),
        "unauthorized": ("AuthenticationError", 401),
        "missing": ("NotFoundError", 404),
        "rate_limit": ("RateLimitError", 429),
        "server_error": ("InternalServerError", 500),
        "overloaded": ("OverloadedError", 529),
        "error_midway": ("APIStatusError", 200),
    }
    async with FakeAnthropic() as vendor:
        answers = await ask(vendor, "anthropic", *expected)
        wrong_key = await ask(vendor, "anthropic", "text", key="wrong")
    assert {scenario: (said["error"], said["status"]) for scenario, said in answers.items()} == expected
    assert wrong_key["text"]["error"] == "AuthenticationError", "the fake let a wrong key in"


async def test_googles_sdk_reads_every_answer() -> None:
    async with FakeGemini() as vendor:
        answers = await ask(vendor, "gemini", "text", "long", "tools", "thinking")
    for scenario, text in SAID.items():
        parts = answers[scenario]["parts"]
        assert "".join(part.get("text", "") for part in parts if not part.get("thought")) == text
    assert [answers[scenario]["finish_reason"] for scenario in answers] == ["STOP", "MAX_TOKENS", "STOP", "STOP"]
    assert answers["text"]["usage"]["cached_content_token_count"] == 5
    calls = [part["function_call"] for part in answers["tools"]["parts"] if "function_call" in part]
    assert [(call["name"], call["args"]) for call in calls] == [
        ("get_weather", {"city": "Paris"}),
        ("get_time", {"zone": "CET"}),
    ]
    thoughts = [part["text"] for part in answers["thinking"]["parts"] if part.get("thought")]
    assert thoughts == ["Two and two make four."]


async def test_googles_sdk_raises_its_own_error_for_every_refusal() -> None:
    expected = {
        "bad_request": ("ClientError", 400),
        "unauthorized": ("ClientError", 401),
        "missing": ("ClientError", 404),
        "rate_limit": ("ClientError", 429),
        "server_error": ("ServerError", 500),
        "overloaded": ("ServerError", 503),
        "error_midway": ("ServerError", 503),
    }
    async with FakeGemini() as vendor:
        answers = await ask(vendor, "gemini", *expected)
        wrong_key = await ask(vendor, "gemini", "text", key="wrong")
    assert {scenario: (said["error"], said["status"]) for scenario, said in answers.items()} == expected
    assert (wrong_key["text"]["error"], wrong_key["text"]["status"]) == ("ClientError", 400), "a wrong key was let in"


async def test_sdks_take_a_cut_stream_for_an_answer() -> None:
    """Which is why Weir must not: neither SDK says a word."""
    async with FakeAnthropic() as anthropic, FakeGemini() as gemini:
        message = (await ask(anthropic, "anthropic", "cut"))["cut"]
        chunks = (await ask(gemini, "gemini", "cut"))["cut"]
    assert message["stop_reason"] is None
    assert chunks["finish_reason"] is None
