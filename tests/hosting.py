"""Somebody else's application under a plain uvicorn, in the test's own event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import uvicorn
from fastapi import FastAPI

from tests.server import LIMIT, Answered, running


class Host:
    """A serving application, and a client of it."""

    def __init__(self, url: str, session: aiohttp.ClientSession):
        self.url = url
        self._session = session

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answered:
        """One request, `body` as JSON. Underscores in header names become hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else msgspec.json.encode(body)
        async with (
            asyncio.timeout(LIMIT),
            self._session.request(method, self.url + path, data=data, headers=named) as got,
        ):
            said = await got.read()
            is_json = got.content_type == "application/json"
            return Answered(got.status, got.headers, msgspec.json.decode(said) if is_json else said)


@asynccontextmanager
async def hosting(app: FastAPI) -> AsyncIterator[Host]:
    """`app` on a free loopback port, with its lifespan, as `uvicorn app:app` would run it."""
    config = uvicorn.Config(app, port=0, log_config=None, ws="websockets-sansio")
    async with running(config) as port, aiohttp.ClientSession() as session:
        yield Host(f"http://127.0.0.1:{port}", session)
