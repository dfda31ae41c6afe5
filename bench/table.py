"""Figures, and how they are shown: medians with their spread, ratios first."""

import statistics
from collections.abc import Sequence
from typing import Any


class Figures:
    """Readings of one run, by title and row. A title is shown once."""

    def __init__(self) -> None:
        self._readings: dict[str, dict[str, list[float]]] = {}
        self._shown: set[str] = set()

    def add(self, title: str, row: str, *readings: float) -> None:
        self._readings.setdefault(title, {}).setdefault(row, []).extend(readings)

    def show(self) -> None:
        for title, rows in self._readings.items():
            if title in self._shown:
                continue
            self._shown.add(title)
            print(f"\n{title}")
            base: dict[str, float] = {
                name: statistics.median(rows[name]) for name in ("nginx", "litellm") if name in rows
            }
            for row, readings in rows.items():
                print(f"  {line(row, readings, base)}", flush=True)

    def as_json(self) -> dict[str, Any]:
        return self._readings


def line(row: str, readings: Sequence[float], base: dict[str, float]) -> str:
    median = statistics.median(readings)
    ratios = "".join(f"{ratio(median, it):>9} {name}" for name, it in base.items())
    return f"{row:28}{ratios} {shown(median):>9}  ({shown(min(readings))} to {shown(max(readings))})"


def ratio(median: float, base: float) -> str:
    if not base or not median:
        return "-"
    return f"{median / base:.1f} x" if median >= base else f"1/{base / median:.0f} x"


def shown(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"
