"""Figures, and how they are shown: ratios first, then medians with their spread, as tables of Markdown."""

import statistics
from typing import Any


class Figures:
    """Readings of one run, by title and row. A title is shown once."""

    def __init__(self) -> None:
        self._readings: dict[str, dict[str, list[float]]] = {}
        self._shown: set[str] = set()

    def add(self, title: str, row: str, *readings: float) -> None:
        self._readings.setdefault(title, {}).setdefault(row, []).extend(readings)

    def median(self, title: str, row: str) -> float | None:
        readings = self._readings.get(title, {}).get(row)
        return statistics.median(readings) if readings else None

    def ratio(self, title: str, row: str, to: str) -> float | None:
        ours, theirs = self.median(title, row), self.median(title, to)
        return ours / theirs if ours is not None and theirs else None

    def show(self) -> None:
        for title, rows in self._readings.items():
            if title in self._shown:
                continue
            self._shown.add(title)
            bases = [name for name in ("nginx", "litellm") if name in rows]
            head = [title, *(f"to {name}" for name in bases), "median", "least and most"]
            print(f"\n{_row(head)}\n{_row(['---'] + ['---:'] * (len(head) - 1))}")
            for row, readings in rows.items():
                ratios = [_times(self.ratio(title, row, name)) for name in bases]
                spread = f"{_number(min(readings))} to {_number(max(readings))}"
                print(_row([row, *ratios, _number(statistics.median(readings)), spread]), flush=True)

    def as_json(self) -> dict[str, Any]:
        return {
            title: {row: [float(f"{it:.4g}") for it in its] for row, its in rows.items()}
            for title, rows in self._readings.items()
        }


def _row(cells: list[str]) -> str:
    first, *others = cells
    return f"| {first:52} | {' | '.join(f'{cell:>14}' for cell in others)} |"


def _times(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.1f} x" if ratio >= 0.95 else f"1/{1 / ratio:.1f}" if ratio > 0.1 else f"1/{1 / ratio:.0f}"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"
