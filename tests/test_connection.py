"""uvicorn's connection, with two habits changed."""

import asyncio
from typing import Any

import msgspec
import pytest

from proxy.api.answer import Answer
from proxy.connection import ABORT
from proxy.pipeline.running import Live
from proxy.request import ChatRequest
from proxy.settings import Settings
from proxy.testing import ScriptedUpstream, hang_after
from proxy.wire.formats import encoder_for
from tests.server import chat, serving

pytestmark = pytest.mark.anyio


async def test_what_is_not_http_is_told_so_in_openais_shape() -> None:
    async with serving() as server:
        status, body = await server.raw(b"NOT HTTP AT ALL\r\n\r\n")
    assert status == 400
    assert msgspec.json.decode(body)["error"]["code"] == "invalid_request"


async def test_a_client_that_takes_nothing_loses_its_connection() -> None:
    """uvicorn would keep it until the client has taken everything, and wait for that when it shuts down."""
    dropped: list[None] = []

    async def never(message: Any = None) -> Any:
        await asyncio.Event().wait()

    async with serving() as server, ScriptedUpstream(hang_after(1)) as upstream:
        await server.register(upstream)
        request, limits = ChatRequest(chat(stream=True), "r1"), Settings(keep_alive=0.02, stall=0.05)
        running = Live(server.weir.pipeline, request, server.weir.stream(request))
        answer = Answer(running, encoder_for("openai", request.heading()), limits)
        scope = {"type": "http", "extensions": {ABORT: {"call": lambda: dropped.append(None)}}}
        await asyncio.wait_for(answer(scope, never, never), 5)
    assert dropped, "the connection was left open"
