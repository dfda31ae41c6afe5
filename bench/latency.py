"""How much later the first token comes: one stream at a time, on the clock, in turns."""

from bench.load import load
from bench.proxies import Proxy
from bench.table import Figures
from bench.tokens import PROXIES, ask

TURNS = 40  # a round
FIRST = "first token of one stream at a time, ms after the request"
ADDED = "added to the first token, ms"


async def first_token(proxies: dict[str, Proxy], rounds: int, figures: Figures) -> None:
    """Each proxy is asked once and then the next one, so that a moment of noise is nobody's."""
    asks = {name: (proxies[name], ask(tokens=1, pace=0)) for name in ("direct", *PROXIES, "weir") if name in proxies}
    if "redis" in proxies:
        once = ask(tokens=1, pace=0, weir={"durable": True})
        asks["weir, durable"] = (proxies["weir on redis"], once)
    for _ in range(rounds * TURNS):
        direct = 0.0
        for name, (proxy, way) in asks.items():
            first = (await load(proxy.port, way, at_once=1)).first[0] * 1e3
            figures.add(FIRST, name, first)
            if name == "direct":
                direct = first
            else:
                figures.add(ADDED, name, first - direct)
