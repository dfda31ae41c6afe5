"""POST /v1/chat/completions"""

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from proxy.api.answer import Answer
from proxy.api.auth import client
from proxy.api.json import read_body
from proxy.journey import Journey
from proxy.request import ChatRequest
from proxy.weir import Weir

router = APIRouter(tags=["OpenAI"], dependencies=[Depends(client)])


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    """OpenAI's chat completions, streamed or whole, from whichever provider serves `model`."""
    weir: Weir = request.app.state.weir
    chat = ChatRequest.parse(await read_body(request), request.state.id)
    return Answer(weir.pipeline, chat, Journey(chat.id, chat.model), weir.settings)
