"""What a plain request and a token cost: CPU of the proxy's process and its children, never the time that passes."""

import asyncio
import json
import os
import random
from collections.abc import Collection
from typing import Any

from bench.load import Ask, load
from bench.processes import cpu
from bench.proxies import KEY, Proxy
from bench.table import Figures

REQUESTS, AT_ONCE = 1500, 8  # plain ones in a round
STREAMS, TOKENS, PACE = 64, 50, 20  # streams at once, tokens in each, milliseconds between them
TIMES = 2  # streams on each connection: half of them on one that has served before
AUTHORIZED = f"authorization: Bearer {KEY}"
PROXIES = ("nginx", "floor", "thin", "litellm")  # those that are not Weir

PLAIN_REQUEST = "a plain request, CPU ms"
TOKEN = "a streamed token at pace, CPU us"
GENERATOR = "the load generator"


def ask(
    path: str = "/v1/chat/completions", tokens: int = TOKENS, pace: int = PACE, *headers: str, **fields: Any
) -> Ask:
    """A request for so many tokens. `fields` are more of its body."""
    told = f"pace={pace} tokens={tokens}" + (" stamped" if fields.pop("stamped", False) else "")
    body = {"model": "fake", "stream": True, "messages": [{"role": "user", "content": told}], **fields}
    times = len(fields.get("provider_ids", [0]))
    return Ask(path, json.dumps(body).encode(), tokens * times, (AUTHORIZED, *headers))


PLAIN = ask(tokens=1, pace=0, stream=False)
STREAMING = "/api/streaming/chat"
# Ways through Weir: everything on, and then each mode, format and vendor by itself.
WAYS: dict[str, Ask] = {
    "weir": ask(),
    "weir, format sse": ask(STREAMING),
    "weir, format ui": ask(STREAMING, stream_format="ui"),
    "weir, in a session": ask(STREAMING, session_id="s", history=False),
    "weir, mode buffered": ask(STREAMING, generator_mode="buffered", stream_format="openai"),
    "weir, mode chunked": ask(STREAMING, generator_mode="chunked", stream_format="openai"),
    "weir, mode interleaved": ask(STREAMING, generator_mode="interleaved", provider_ids=["fake", "fake2"]),
    "weir, mode priority": ask(STREAMING, generator_mode="priority", provider_ids=["fake", "fake2"]),
    "weir, from Anthropic's wire": ask(model="anthropic"),
    "weir, from Gemini's wire": ask(model="gemini"),
}
DURABLE = ask(weir={"durable": True})


async def until_up(name: str, proxy: Proxy) -> None:
    """Waits for the first answer, and has some more, so that nothing is measured for the first time."""
    await first_answer(name, proxy, look=0.05)
    await load(proxy.port, PLAIN, at_once=AT_ONCE, times=10)


async def first_answer(name: str, proxy: Proxy, look: float) -> None:
    """Waits for it, asking every `look` seconds. Raises SystemExit where none comes within a minute."""
    for _ in range(int(60 / look)):
        try:
            await load(proxy.port, PLAIN, at_once=1)
            return
        except (RuntimeError, OSError):
            await asyncio.sleep(look)
    raise SystemExit(f"{name}: nothing answers on port {proxy.port}")


async def plain(proxies: dict[str, Proxy], rounds: int, figures: Figures) -> None:
    names = [name for name in ("direct", *PROXIES, "weir") if name in proxies]
    for name in names:
        figures.add(PLAIN_REQUEST, name)  # the rows stand in this order
        await load(proxies[name].port, PLAIN, at_once=AT_ONCE, times=20)
    for number in range(rounds):
        for name in shuffled(names, number):
            proxy, times = proxies[name], REQUESTS // AT_ONCE // (20 if name == "litellm" else 1)
            before = cpu(proxy.pid)
            await load(proxy.port, PLAIN, at_once=AT_ONCE, times=times)
            figures.add(PLAIN_REQUEST, name, (cpu(proxy.pid) - before) / (times * AT_ONCE) * 1e3)


def shuffled(names: Collection[str], number: int) -> list[str]:
    """In an order that is this round's: who comes after LiteLLM finds another machine than who comes after nginx."""
    return random.Random(number).sample([*names], len(names))


async def tokens(proxies: dict[str, Proxy], rounds: int, figures: Figures) -> None:
    ways = {name: (proxies[name], ask()) for name in ("direct", *PROXIES) if name in proxies}
    ways |= {name: (proxies["weir"], way) for name, way in WAYS.items()}
    if "redis" in proxies:
        ways["weir, durable"] = (proxies["weir on redis"], DURABLE)
    for name, (proxy, way) in ways.items():
        figures.add(TOKEN, name)
        if name == "direct":
            figures.add(TOKEN, GENERATOR)
        await load(proxy.port, way, at_once=STREAMS)
    for number in range(rounds):
        for name in shuffled(ways, number):
            proxy, way = ways[name]
            each = 1e6 / (STREAMS * TIMES * way.tokens)
            before, ours = cpu(proxy.pid), cpu(os.getpid())
            store = cpu(proxies["redis"].pid) if name == "weir, durable" else 0.0
            await load(proxy.port, way, at_once=STREAMS, times=TIMES)
            figures.add(TOKEN, name, (cpu(proxy.pid) - before) * each)
            if name == "direct":
                figures.add(TOKEN, GENERATOR, (cpu(os.getpid()) - ours) * each)
            if store:
                figures.add(TOKEN, "redis, for weir, durable", (cpu(proxies["redis"].pid) - store) * each)
