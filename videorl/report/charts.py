"""Small line charts as inline SVG. All text is escaped here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 340, 170
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 8, 22
"""Margins of the plot in pixels, for the labels of the axes."""

Series = Sequence[tuple[float, float | None]]
"""(x, y) in order of x; None breaks the line."""


def number(value: float | None) -> str:
    """Return a number with about three significant digits."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        return f"{value:.1e}".replace("-", "−")
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def fixed(value: float | None) -> str:
    """Return a score with three decimals, so that columns of scores line up."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def signed(value: float) -> str:
    """Return a difference of scores with its sign."""
    return f"{value:+.3f}".replace("-", "−")


def percent(value: float | None) -> str:
    """Return a relative change, e.g. +4.2 %."""
    return "–" if value is None else f"{100 * value:+.1f} %".replace("-", "−")


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round numbers within [low, high] (low < high), at least two."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [factor * power for factor in (0.5, 1, 2, 5, 10)]
    wide = next(index for index, step in enumerate(steps) if step >= rough * 0.999)
    marks = _multiples(steps[wide], low, high)
    return marks if len(marks) > 1 else _multiples(steps[wide - 1], low, high)


def _multiples(step: float, low: float, high: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return labels of evenly spaced ticks, with as many digits as tell them apart."""
    step = values[1] - values[0] if len(values) > 1 else 0.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 3
    if digits > 4 or max(map(abs, values), default=0.0) >= 1e5:
        return [f"{value:.3g}".replace("e-0", "e-").replace("-", "−") for value in values]
    return [f"{value + 0.0:.{digits}f}".replace("-", "−") for value in values]


def smooth(series: Series) -> list[tuple[float, float | None]]:
    """Return a centred moving average over about a tenth of the points; None stays None."""
    reach = len(series) // 20
    smoothed: list[tuple[float, float | None]] = []
    for i, (x, y) in enumerate(series):
        # The window shrinks at both ends alike, so that a trend is not bent there.
        near = min(reach, i, len(series) - 1 - i)
        around = [v for _, v in series[i - near : i + near + 1] if v is not None]
        smoothed.append((x, None if y is None else sum(around) / len(around)))
    return smoothed


def chart(
    title: str,
    series: Series,
    *,
    note: str = "",
    swaps: Sequence[float] = (),
    level: tuple[float, str] | None = None,
    is_smoothed: bool = True,
) -> str:
    """Return one figure: raw values thin, their moving average thick.

    Args:
        title: Of the figure.
        series: What is drawn.
        note: A line below the title.
        swaps: x of vertical lines, where the reference became the policy.
        level: Height and name of a horizontal line to compare with.
        is_smoothed: False draws the values only.
    """
    known = [y for _, y in series if y is not None]
    head = f"<figcaption><b>{escape(title)}</b>{_ends(known) if is_smoothed else ''}"
    head += f"<small>{escape(note)}</small>" if note else ""
    head += "</figcaption>"
    if not known:
        return f'<figure class="chart">{head}<p class="empty">no values</p></figure>'
    low, high = _range([*known, *([level[0]] if level else [])])
    first, last = series[0][0], series[-1][0]
    plot = _Plot(
        x_at=_scale(first, last if last > first else first + 1, LEFT, WIDTH - RIGHT),
        y_at=_scale(low, high, HEIGHT - BOTTOM, TOP),
    )
    parts = [plot.axes(low, high, first, last), *(plot.swap(x) for x in swaps)]
    parts += [plot.level(*level)] if level else []
    parts += plot.lines(series, smooth(series) if is_smoothed else series)
    points = escape(json.dumps(plot.points(series), separators=(",", ":")), quote=True)
    return (
        f'<figure class="chart">{head}<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title, quote=True)}" data-points="{points}">{"".join(parts)}</svg>'
        "</figure>"
    )


def interval_bar(low: float, mean: float, high: float, reach: float) -> str:
    """Return an interval as a bar with a dot, on an axis from -reach to reach with 0 marked."""
    at = _scale(-reach, reach, 4, 136)
    return (
        '<svg class="interval" viewBox="0 0 140 16" aria-hidden="true">'
        '<line class="zero" x1="70" x2="70" y1="1" y2="15"/>'
        f'<line class="line" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="8" y2="8"/>'
        f'<circle class="dot" cx="{at(mean):.1f}" cy="8" r="3.5"/></svg>'
    )


def _ends(known: list[float]) -> str:
    if len(known) < 2:
        return f"<span>{number(known[0])}</span>" if known else ""
    return f"<span>{number(known[0])} → {number(known[-1])}</span>"


def _range(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (stop - start)


@dataclass(frozen=True)
class _Plot:
    """The parts of one chart; both functions map values to pixels."""

    x_at: Callable[[float], float]
    y_at: Callable[[float], float]

    def axes(self, low: float, high: float, first: float, last: float) -> str:
        """Return grid lines with their labels, and labels of whole x."""
        parts = []
        marks = ticks(low, high)
        for y, name in zip(marks, tick_labels(marks), strict=True):
            at = self.y_at(y)
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
                f'<text class="y" x="{LEFT - 6}" y="{at + 3.5:.1f}">{name}</text>'
            )
        whole = [x for x in ticks(first, last, 5) if x == round(x)] if last > first else [first]
        parts += [
            f'<text class="x" x="{self.x_at(x):.1f}" y="{HEIGHT - 6}">{x:.0f}</text>' for x in whole
        ]
        return "".join(parts)

    def swap(self, x: float) -> str:
        """Return the vertical line of a reference swap."""
        at = f"{self.x_at(x):.1f}"
        return f'<line class="swap" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'

    def level(self, y: float, name: str) -> str:
        """Return a horizontal line to compare with."""
        at = self.y_at(y)
        return (
            f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="level" x="{WIDTH - RIGHT}" y="{at - 4:.1f}">{escape(name)}</text>'
        )

    def lines(self, series: Series, smoothed: Series) -> list[str]:
        """Return the smoothed line, the raw one if it differs, and dots where there are few."""
        raw = [] if list(smoothed) == list(series) else [self._path("raw", series)]
        few = [(x, y) for x, y in series if y is not None and len(series) <= 16]
        dots = [
            f'<circle class="dot" cx="{self.x_at(x):.1f}" cy="{self.y_at(y):.1f}" r="2.5"/>'
            for x, y in few
        ]
        return [*raw, self._path("line", smoothed), *dots]

    def points(self, series: Series) -> list[list[float | str]]:
        """Return [x in pixels, y in pixels, x, y] of every value, for the cursor."""
        return [
            [round(self.x_at(x), 1), round(self.y_at(y), 1), f"{x:.0f}", number(y)]
            for x, y in series
            if y is not None
        ]

    def _path(self, name: str, series: Series) -> str:
        commands, pen = [], "M"
        for x, y in series:
            if y is None:
                pen = "M"
                continue
            commands.append(f"{pen}{self.x_at(x):.1f} {self.y_at(y):.1f}")
            pen = "L"
        return f'<path class="{name}" d="{"".join(commands)}"/>'
