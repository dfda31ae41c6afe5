"""uvicorn's HTTP connection, with two habits changed that ASGI gives no way to reach."""

from http import HTTPStatus

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from proxy.errors import RequestError

ABORT = "weir.abort"  # in `scope["extensions"]`: drops the connection, and what the client has not taken of it


class Connection(HttpToolsProtocol):
    """Lets go of a client that takes nothing, and answers what is not HTTP in OpenAI's error shape, as all else."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # uvicorn's own close() waits until the client has taken everything: here, for ever.
        self.scope["extensions"] = {ABORT: {"call": self.transport.abort}}

    def send_400_response(self, msg: str) -> None:
        body = msgspec.json.encode(RequestError(f"not an HTTP request: {msg}").body())
        head = f"HTTP/1.1 400 {HTTPStatus(400).phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()
