"""POST /api/streaming/chat: one request, answered by one provider or several, in the mode and format it asks for."""

from fastapi import APIRouter, Depends
from starlette.responses import Response

from proxy.api.answer import answer_to
from proxy.api.auth import client, owner_of
from proxy.api.request import Request
from proxy.api.route import Route
from proxy.streaming_request import StreamingRequest

router = APIRouter(route_class=Route, tags=["streaming"], dependencies=[Depends(client)])


@router.post("/api/streaming/chat")
async def streaming_chat(request: Request) -> Response:
    """Streams the answer as server-sent events: the guide's (`sse`), OpenAI's (`openai`) or the AI SDK's (`ui`)."""
    asked = StreamingRequest(await request.json_object(), request.id, request.weir.router.default)
    asked.chat.owner = owner_of(request, asked.user_id)
    return await answer_to(request, asked.chat, asked.format)
