"""POST /v1/chat/completions"""

from fastapi import APIRouter, Depends
from starlette.responses import Response

from proxy.api.answer import answer_to
from proxy.api.auth import client, owner_of
from proxy.api.request import Request
from proxy.api.route import Route
from proxy.request import ChatRequest

router = APIRouter(route_class=Route, tags=["OpenAI"], dependencies=[Depends(client)])


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    """OpenAI's chat completions, streamed or whole, from whichever provider serves `model`.

    `x-weir-mode` names a stream mode, for clients that cannot add the field `weir` to the body.
    """
    chat = ChatRequest(await request.json_object(), request.id)
    if mode := request.headers.get("x-weir-mode"):
        chat.options.mode = mode
    chat.owner = owner_of(request, chat.user)
    return await answer_to(request, chat, "openai")
