"""POST /api/chat: what the AI SDK's chat sends with its default transport, and the stream it reads, also once more.

https://ai-sdk.dev/docs/ai-sdk-ui/transport; the body is `{id, messages, trigger, messageId}` and what the client adds.
"""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends
from starlette.responses import Response

from proxy.api.answer import answer_to, reading
from proxy.api.auth import client, owner_of
from proxy.api.request import Request
from proxy.api.route import Route
from proxy.request import converted
from proxy.state.sessions import SessionRef
from proxy.streaming_request import StreamingRequest
from proxy.wire.ui_messages import continued, read_messages

router = APIRouter(route_class=Route, tags=["streaming"], dependencies=[Depends(client)])

OURS = ("id", "messages", "trigger", "messageId")


class _Chat(msgspec.Struct, rename="camel"):
    messages: list[dict[str, Any]]
    id: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    weir: dict[str, Any] = {}
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"


@router.post("/api/chat")
async def ui_chat(request: Request) -> Response:
    """Answers a chat of the AI SDK. Its `id` is the session; the client sends the conversation, so none is added.

    What else the body holds is as for `/api/streaming/chat`: `provider_id`, `generator_mode`, `temperature` ...
    """
    body = await request.json_object()
    chat = converted(body, _Chat)
    fields = {name: value for name, value in body.items() if name not in OURS}
    told = {
        **fields,
        "messages": read_messages(chat.messages),
        "session_id": chat.id,
        "history": False,
        "weir": {**chat.weir, "replace_last": chat.trigger == "regenerate-message"},
    }
    asked = StreamingRequest(told, request.id, request.weir.router.default)
    asked.chat.owner = owner_of(request, asked.user_id)
    message_id = continued(chat.messages) or request.id
    return await answer_to(request, asked.chat, "ui", message_id)


@router.get("/api/chat/{chat_id}/stream")
async def resume_ui_chat(request: Request, chat_id: str, user_id: str | None = None) -> Response:
    """What is being answered in a chat, from its beginning; 204 if nothing is: what the SDK's `resume` asks for."""
    session = SessionRef.of(owner_of(request, user_id), chat_id)
    reader = await request.weir.durable.answering(session, owner_of(request), request.id)
    if reader is None:
        return Response(status_code=204)
    # To the SDK it is a whole message, and would take the place of the one that the answer goes on with.
    reader.about.heading.message_id = ""
    return reading(reader, "ui", request.weir.settings)
