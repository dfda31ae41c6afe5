"""What Weir is to reach, beside what was measured."""

from collections.abc import Iterator

from bench import latency, many, rest, tokens
from bench.table import Figures

TO_NGINX = {
    "weir": 4.0,
    "weir, format sse": 5.5,
    "weir, format ui": 5.5,
    "weir, mode buffered": 5.5,
    "weir, mode chunked": 5.5,
    "weir, mode interleaved": 5.5,
    "weir, mode priority": 5.5,
}
TO_LITELLM = {tokens.TOKEN: 1 / 12, tokens.PLAIN_REQUEST: 1 / 40}
ABSOLUTE = {
    (tokens.PLAIN_REQUEST, "weir"): 0.35,
    (tokens.TOKEN, "weir, from Anthropic's wire"): 150,
    (tokens.TOKEN, "weir, from Gemini's wire"): 150,
    (tokens.TOKEN, "weir, durable"): 100,
    (latency.ADDED, "weir"): 1.5,
    (many.LATE_P99, "weir"): 100,
    (many.MEMORY, "weir"): 60,
    (rest.MEMORY, "weir"): 90,
    (rest.START, "weir"): 1.0,
}


def compared(figures: Figures) -> Iterator[tuple[str, float, float]]:
    """What was measured: its name, the figure, and what it may be at most."""
    for row, most in TO_NGINX.items():
        if (ratio := figures.ratio(tokens.TOKEN, row, "nginx")) is not None:
            yield f"{tokens.TOKEN}: {row}, to nginx", ratio, most
    for title, most in TO_LITELLM.items():
        if (ratio := figures.ratio(title, "weir", "litellm")) is not None:
            yield f"{title}: to LiteLLM's proxy", ratio, most
    for (title, row), most in ABSOLUTE.items():
        if (median := figures.median(title, row)) is not None:
            yield f"{title}: {row}", median, most
    costs = [cost for at_once in many.AT_ONCE if (cost := figures.median(many.COST.format(at_once), "weir"))]
    if costs:
        yield "a token's cost, the dearest number of streams to the cheapest", max(costs) / min(costs), 1.5


def show(figures: Figures) -> None:
    print(f"\n| {'goal':84} | {'at most':>8} | {'measured':>8} |\n| --- | ---: | ---: |")
    for name, figure, most in compared(figures):
        print(f"| {name:84} | {most:8.3g} | {figure:8.3g} | {'' if figure <= most else 'missed'}")
