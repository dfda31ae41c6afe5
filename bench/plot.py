"""The picture of bench/README.md: what a streamed token costs, side by side. `make bench-plot`.

`python -m bench.plot [--figures FILE] [--to FILE]`, in an environment of its own, that has matplotlib and nothing else.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TITLE = "a streamed token at pace, CPU us"  # as bench/tokens.py has it, whose imports are not to be had here
NOT_PROXIES = ("direct", "the load generator", "redis, for weir, durable")
NAMES = {
    "weir": "Weir, OpenAI's wire",
    "nginx": "nginx, a plain reverse proxy",
    "floor": "Python's floor: two uvloop protocols",
    "thin": "FastAPI and aiohttp, no features",
    "litellm": "LiteLLM's proxy",
}
TEXT, OTHERS, OURS, OURS_FIRST = "#59636e", "#a8afb6", "#6fb7ad", "#12897b"
# The page shows through. Where a reader likes it dark, what is written is lighter.
IN_THE_DARK = (
    "<style>@media (prefers-color-scheme: dark) {"
    f'[style*="fill: {TEXT}"] {{ fill: #9198a1 !important }} '
    f'[style*="stroke: {TEXT}"] {{ stroke: #9198a1 !important }}'
    "}</style>"
)
ROW, HEAD, WIDTH = 0.33, 0.74, 8.8  # inches


@dataclass(frozen=True)
class Bar:
    name: str
    median: float
    least: float
    most: float
    ours: bool = False
    first: bool = False  # the way most people take

    @property
    def color(self) -> str:
        return OURS_FIRST if self.first else OURS if self.ours else OTHERS


def bars(rows: Mapping[str, Sequence[float]]) -> list[Bar]:
    """The proxies among `rows`, the cheapest first."""
    found = [
        Bar(
            NAMES.get(name, name.replace("weir", "Weir", 1)),
            statistics.median(readings),
            min(readings),
            max(readings),
            ours=name.startswith("weir"),
            first=name == "weir",
        )
        for name, readings in rows.items()
        if name not in NOT_PROXIES
    ]
    return sorted(found, key=lambda bar: bar.median)


def draw(found: Sequence[Bar], rounds: int, to: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "weir", "font.size": 9.5})
    matplotlib.rcParams["font.sans-serif"] = ["DejaVu Sans"]  # or whatever a reader's machine has: few are as wide
    from matplotlib import pyplot

    high = ROW * len(found) + HEAD
    figure, axes = pyplot.subplots(figsize=(WIDTH, high))
    figure.subplots_adjust(left=0.34, right=0.995, top=1 - HEAD / high, bottom=0)
    longest = max(bar.most for bar in found)
    gap = longest * 0.012
    for row, bar in enumerate(found):
        style: dict[str, Any] = {"va": "center", "color": TEXT, "weight": "bold" if bar.first else "normal"}
        axes.barh(row, bar.median, height=0.5, color=bar.color, linewidth=0)
        axes.plot((bar.least, bar.most), (row + 0.33, row + 0.33), color=TEXT, linewidth=0.9, solid_capstyle="butt")
        axes.text(-gap, row, bar.name, ha="right", **style)
        axes.text(bar.median + gap, row, f"{bar.median:.{1 if bar.median < 10 else 0}f}", **style)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlim(0, longest * 1.04)
    axes.axis("off")
    style = {"va": "center", "color": TEXT}
    figure.text(0.012, 1 - 0.2 / high, "CPU time of a streamed token, µs", size=13, weight="bold", **style)
    told = f"medians of {rounds} rounds; a thin line goes from the lowest to the highest"
    figure.text(0.012, 1 - 0.45 / high, told, size=8.5, **style)
    figure.savefig(to, transparent=True, metadata={"Date": None})


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(prog="bench.plot")
    parser.add_argument(
        "--figures", type=Path, default=here / "figures.json", help="what `python -m bench --write` wrote"
    )
    parser.add_argument("--to", type=Path, default=here / "cpu-a-token.svg")
    given = parser.parse_args()
    rows = json.loads(given.figures.read_text())[TITLE]
    draw(bars(rows), len(rows["weir"]), given.to)
    picture = given.to.read_text()
    given.to.write_text(picture.replace("<defs>", f"{IN_THE_DARK}\n <defs>", 1))


if __name__ == "__main__":
    main()
