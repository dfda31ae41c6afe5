"""The least that FastAPI and aiohttp can do: pass bytes on, without features or failures. Weir is built from these.

`python -m bench.thin PORT UPSTREAM_PORT`
"""

import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse


def create_app(upstream: int) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as app.state.session:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        response = await app.state.session.post(
            f"http://127.0.0.1:{upstream}/v1/chat/completions",
            data=await request.body(),
            headers={"content-type": "application/json"},
        )
        if response.content_type == "application/json":
            async with response:
                return Response(await response.read(), media_type="application/json")
        return StreamingResponse(_pieces(response), media_type="text/event-stream")

    return app


async def _pieces(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    async with response:
        while data := await response.content.readany():
            yield data


if __name__ == "__main__":
    uvicorn.run(create_app(int(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
