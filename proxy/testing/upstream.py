"""A scripted upstream over TCP, and scripts for it: what vendors say, and how they fail."""

import asyncio
import enum
import json
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self, cast


class Answer(NamedTuple):
    """The status line and headers. What follows is sent in HTTP chunks, unless `headers` say how it is framed."""

    status: int = 200
    headers: Mapping[str, str] = {}


class Fault(enum.Enum):
    HANG = "says nothing until the client goes away"
    CLOSE = "closes the connection (FIN), even in the middle of a body"
    RESET = "breaks the connection (RST)"


Step = Answer | bytes | asyncio.Event | Fault  # an asyncio.Event is waited for: the test says when to go on
Script = Sequence[Step]  # one that runs out ends the body cleanly, and the connection can be used again


class Request(NamedTuple):
    """What came: `path` as on the request line, header names in lower case, the body's JSON, on which connection."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: int


class ScriptedUpstream:
    """An HTTP server on a free loopback port. Plays one script a request, in order; the last one repeats."""

    def __init__(self, *scripts: Script):
        self.scripts = scripts
        self.requests: list[Request] = []
        self.connections = 0
        self.disconnects = 0  # clients that went away before their script was over
        self._news = asyncio.Event()
        self._serving: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def until(self, happened: Callable[[Self], bool]) -> None:
        """Waits for something to be true of this upstream, such as `lambda it: len(it.requests) == 2`."""
        async with asyncio.timeout(5):
            while not happened(self):
                await self._news.wait()

    async def disconnected(self, times: int = 1) -> None:
        """Waits until that many clients have gone away."""
        await self.until(lambda upstream: upstream.disconnects >= times)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(cast("asyncio.Task[Any]", asyncio.current_task()))
        self.connections += 1
        number, playing = self.connections, None
        coming = asyncio.create_task(_read(reader, number))
        try:
            while request := await coming:
                script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
                self.requests.append(request)
                self._tell()
                coming = asyncio.create_task(_read(reader, number))  # is over before its time if the client goes away
                playing = asyncio.create_task(_play(script, writer))
                await asyncio.wait((playing, coming), return_when=asyncio.FIRST_COMPLETED)
                if not playing.done() or playing.exception():
                    self.disconnects += 1
                    self._tell()
                    break
                if not playing.result():
                    break
        except asyncio.CancelledError:
            pass  # the test is over; asyncio's streams would report it
        finally:
            coming.cancel()
            if playing is not None:
                playing.cancel()
            writer.close()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


async def _read(reader: asyncio.StreamReader, connection: int) -> Request | None:
    try:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        data = await reader.readexactly(int(headers.get("content-length", 0)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    method, path, _ = first.split(" ")
    return Request(method, path, headers, json.loads(data) if data else None, connection)


async def _play(script: Script, writer: asyncio.StreamWriter) -> bool:
    chunked = False
    for step in script:
        if isinstance(step, asyncio.Event):
            await step.wait()
        elif isinstance(step, bytes):
            writer.write(b"%x\r\n%b\r\n" % (len(step), step) if chunked and step else step)
        elif isinstance(step, Answer):
            headers = {"content-type": "text/event-stream", **step.headers}
            if chunked := not {"content-length", "transfer-encoding"} & headers.keys():
                headers["transfer-encoding"] = "chunked"
            head = [f"HTTP/1.1 {step.status} Scripted", *(f"{name}: {value}" for name, value in headers.items())]
            writer.write("\r\n".join([*head, "", ""]).encode())
        elif step is Fault.HANG:
            await asyncio.Event().wait()
        else:
            if step is Fault.RESET:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False  # and closed by our caller
        await writer.drain()
    writer.write(b"0\r\n\r\n" if chunked else b"")
    return True


def refuse() -> str:
    """The base URL of a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/v1"


def chunk(delta: dict[str, Any] | None = None, *, index: int = 0, finish: str | None = None, **rest: Any) -> Any:
    """One chat.completion.chunk; `rest` are more of its fields, such as usage, or choices in place of the one."""
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "scripted"}
    return {**head, "choices": [choice], **rest}


def sse(*payloads: Any) -> bytes:
    """Each as one event: text as it is, anything else as JSON."""
    texts = (payload if isinstance(payload, str) else json.dumps(payload) for payload in payloads)
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def begun(*pieces: str) -> list[Step]:
    """A text answer that has not ended yet, each piece written by itself."""
    return [Answer(), sse(chunk({"role": "assistant", "content": ""})), *(sse(chunk({"content": p})) for p in pieces)]


def text(*pieces: str, usage: tuple[int, int] | None = (5, 2), finish: str = "stop") -> list[Step]:
    """A complete answer. `usage`: tokens in, tokens out."""
    script = [*begun(*pieces), sse(chunk(finish=finish))]
    if usage:
        counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        script.append(sse(chunk(choices=[], usage=counts)))
    return [*script, sse("[DONE]")]


def status(code: int, message: str = "no", *, retry_after: str | None = None) -> list[Step]:
    """An error as OpenAI writes it."""
    headers = {"content-type": "application/json", **({"retry-after": retry_after} if retry_after else {})}
    return [Answer(code, headers), json.dumps({"error": {"message": message, "type": "scripted"}}).encode()]


def html(code: int = 200) -> list[Step]:
    """What a captive portal or a load balancer says."""
    return [Answer(code, {"content-type": "text/html"}), b"<!doctype html><title>Sorry</title>"]


def broken_json() -> list[Step]:
    """An answer whose second chunk is not JSON."""
    return [*begun(), sse('{"choices": [')]


def error_in_stream(message: str = "overloaded", *, after: int = 0, **fields: Any) -> list[Step]:
    """An error after the 200, and after that many pieces of text."""
    return [*begun(*["la "] * after), sse({"error": {"message": message, **fields}})]


def cut_after(pieces: int) -> list[Step]:
    """A body that ends cleanly, without a finish_reason: the end that clients take for success."""
    return begun(*["la "] * pieces)


def reset_after(pieces: int) -> list[Step]:
    return [*cut_after(pieces), Fault.RESET]


def hang_after(pieces: int) -> list[Step]:
    return [*cut_after(pieces), Fault.HANG]


def hang_before() -> list[Step]:
    return [Fault.HANG]
