"""The ways through Weir that a soak takes, each of them one client's visit."""

import asyncio
import json
from collections.abc import Awaitable, Callable

from bench.soak.cut import LACKING
from bench.soak.visit import Broken, Left, Visit, check, end_of_sse
from bench.upstream import TOKEN

OPENAI, STREAMING, UI = "/v1/chat/completions", "/api/streaming/chat", "/api/chat"
MODES = ("standard", "buffered", "chunked", "interleaved", "priority")
FORMATS = ("sse", "openai", "ui")
ENDS = ("finish", "error", "abort")


async def openai(visit: Visit) -> None:
    check(await visit.ask(OPENAI, model="fake", stream=True), "openai", visit.tokens)


async def shared(visit: Visit) -> None:
    """A model that many serve: one of them refuses, others come, change and go meanwhile."""
    check(await visit.ask(OPENAI, model="shared", stream=True), "openai", visit.tokens)


async def translated(visit: Visit) -> None:
    vendor = visit.chance.choice(("anthropic", "gemini"))
    check(await visit.ask(OPENAI, model=vendor, stream=True), "openai", visit.tokens)


async def plain(visit: Visit) -> None:
    patience = None if visit.leaves_at is None else visit.leaves_at * visit.pace / 1000
    visit.leaves_at = None
    try:
        async with asyncio.timeout(patience):
            answer = json.loads(await visit.ask(OPENAI, model=visit.chance.choice(("fake", "anthropic"))))
    except TimeoutError:
        if patience is None:
            raise
        raise Left from None
    choice = answer["choices"][0]
    said = choice["message"]["content"].count(TOKEN.decode())
    if (said, choice["finish_reason"]) != (visit.tokens, "stop"):
        raise Broken(f"{said} tokens of {visit.tokens} in a plain answer, {choice['finish_reason']}")


async def shaped(visit: Visit) -> None:
    mode, format = visit.chance.choice(MODES), visit.chance.choice(FORMATS)
    answer = await visit.ask(STREAMING, provider_id="fake", generator_mode=mode, stream_format=format)
    check(answer, format, visit.tokens)


async def together(visit: Visit) -> None:
    """Two providers at once, in one stream."""
    mode, format = visit.chance.choice(MODES), visit.chance.choice(FORMATS)
    both = ["fake", visit.chance.choice(("fake2", "gemini"))]
    answer = await visit.ask(STREAMING, provider_ids=both, generator_mode=mode, stream_format=format)
    check(answer, format, 2 * visit.tokens)


async def conversation(visit: Visit) -> None:
    """Some turns of a session; its history must have them all. Half of the clients forget it, half let it expire."""
    leaves_at, visit.leaves_at = visit.leaves_at, None
    session, user, turns = f"{visit.chance.getrandbits(64):x}", f"user-{visit.chance.randrange(20)}", 0
    for left in reversed(range(visit.chance.randint(1, 4))):
        visit.leaves_at = None if left else leaves_at
        check(await visit.ask(STREAMING, model="shared", session_id=session, user_id=user), "sse", visit.tokens)
        turns += 1
    place = f"/api/streaming/sessions/{session}?user_id={user}"
    async with visit.http.get(place) as response:
        states = [turn["state"] for turn in (await response.json())["turns"]]
    if states != ["finished"] * turns:
        raise Broken(f"a session of {turns} turns has {states}")
    if visit.chance.random() < 0.5:
        async with visit.http.delete(place) as response:
            response.raise_for_status()


async def ui_chat(visit: Visit) -> None:
    chat = f"{visit.chance.getrandbits(64):x}"
    messages = [{"id": "m", "role": "user", "parts": [{"type": "text", "text": visit.text}]}]
    check(await visit.ask(UI, id=chat, model="shared", messages=messages), "ui", visit.tokens)


async def durable(visit: Visit) -> None:
    """Half of these leave; of them half come back for the rest, and the others' streams end by themselves."""
    format, weir = visit.chance.choice(FORMATS), {"durable": True, "detached": 2}
    if visit.chance.random() < 0.5:
        visit.leaves_at = visit.chance.randrange(visit.tokens)
    try:
        answer = await visit.ask(STREAMING, model="shared", stream_format=format, weir=weir)
    except Left:
        if visit.chance.random() < 0.5:
            raise
        answer = await visit.come_back(format)
    finally:
        visit.durable |= {visit.stream_id} - {""}
    check(answer, format, visit.tokens)


async def once(visit: Visit) -> None:
    """An idempotency key, used twice: the same stream, byte for byte."""
    visit.leaves_at = None
    key = {"idempotency-key": f"{visit.chance.getrandbits(64):x}"}
    first = await visit.ask(OPENAI, key, model="fake", stream=True)
    check(first, "openai", visit.tokens)
    visit.durable.add(visit.stream_id)
    if await visit.ask(OPENAI, key, model="fake", stream=True) != first:
        raise Broken("a stream that was asked for again is not the same")


async def talked_to(visit: Visit) -> None:
    """Paused, gone on with, then steered or cancelled, over REST while it is read."""
    visit.tokens, visit.pace, visit.leaves_at = 40, 30, None
    reading = asyncio.create_task(visit.ask(STREAMING, provider_id="fake"))
    reading.add_done_callback(lambda _: visit.begun.set())
    await visit.begun.wait()
    steers = visit.chance.random() < 0.5
    last = ("steer", {"instruction": "shorter"}) if steers else ("cancel", {"reason": "enough"})
    for action, fields in (("pause", {"seconds": 5}), ("resume", {}), ("feedback", {"rating": "up"}), last):
        if (status := await visit.tell(action, **fields)) != 200:
            reading.cancel()
            raise Broken(f"{action} is answered with {status}")
    answer = await reading
    end, said = end_of_sse(answer), answer.count(TOKEN)
    if end != ("finish" if steers else "abort") or (said < visit.tokens) == steers:
        raise Broken(f"after {last[0]} there are {said} tokens, and the end is {end!r}")


async def socket(visit: Visit) -> None:
    """Some chats on a WebSocket, of which one may be cancelled; the client may drop the connection."""
    running = {str(number) for number in range(visit.chance.randint(1, 3))}
    cancelled = "0" if visit.chance.random() < 0.3 else None
    async with visit.http.ws_connect(f"/api/streaming/ws/user-{visit.chance.randrange(20)}") as ws:
        for name in sorted(running):
            asked = {"model": "shared", "messages": visit.messages}
            await ws.send_json({"message_type": "chat_request", "request_id": name, "data": asked})
        if cancelled:
            await ws.send_json({"message_type": "cancel", "request_id": cancelled, "data": {}})
        said = dict.fromkeys(running, 0)
        while running:
            message = await ws.receive_json()
            name, kind = message.get("request_id", ""), message["message_type"]
            if kind == "error":
                raise Broken(f"on a socket: {message}")
            if kind != "stream_event":
                continue
            event, data = message["data"]["event_type"], message["data"]["event_data"]
            said[name] += event == "text-delta" and data["content"].count(TOKEN.decode())
            if visit.leaves_at is not None and said[name] > visit.leaves_at:
                ws._response.close()  # no farewell
                raise Left
            if event in ENDS:
                running.remove(name)
                wrong = said[name] != visit.tokens if event == "finish" else name != cancelled or event != "abort"
                if wrong:
                    raise Broken(f"on a socket: {said[name]} tokens of {visit.tokens}, then {event} {data}")


async def refused(visit: Visit) -> None:
    """The only provider of this model has a port at which nobody listens."""
    async with visit.http.post(OPENAI, json={"model": "dead", "stream": True, "messages": visit.messages}) as response:
        if response.status not in (502, 503):
            raise Broken(f"a provider that refuses is a {response.status} {await response.text()}")


async def cut(visit: Visit) -> None:
    """Its provider breaks off: what it said stands, and the end says so."""
    format = visit.chance.choice(FORMATS)
    answer = await visit.ask(STREAMING, provider_id="cut", stream_format=format)
    check(answer, format, visit.tokens - LACKING, "error")


# Each with how often it is taken.
WAYS: dict[Callable[[Visit], Awaitable[None]], int] = {
    openai: 20,
    shared: 15,
    translated: 10,
    plain: 10,
    shaped: 15,
    together: 8,
    conversation: 6,
    ui_chat: 4,
    durable: 8,
    once: 3,
    talked_to: 3,
    socket: 6,
    refused: 2,
    cut: 2,
}
