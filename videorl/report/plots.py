"""Line plots as SVG files of their own, for folders and documents. All text is escaped here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from videorl.report.charts import tick_labels, ticks

WIDTH, HEIGHT = 740, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 196, 34, 46
"""Margins in pixels; the legend is in the right one."""
COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#475569")
MOST_DOTS = 16
"""A line of more points is drawn without dots."""
_STYLE = """
text { font: 12px sans-serif; fill: #444 } .middle { text-anchor: middle } .end { text-anchor: end }
.title { font-weight: bold; fill: #222 } .grid { stroke: #ddd } .note { font-size: 10px }
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One named series."""

    name: str
    points: Sequence[tuple[float, float | None]]
    """(x, y) in drawing order; those without y are left out."""
    notes: Sequence[str] = ()
    """Text beside each point; empty = none."""
    intervals: Sequence[tuple[float, float]] = ()
    """Lowest and highest y of each point; empty = none."""


def line_plot(
    title: str,
    lines: Sequence[Line],
    *,
    x_name: str,
    y_name: str,
    y_range: tuple[float, float] | None = None,
) -> str:
    """Return one plot with a legend.

    Args:
        title: Above it.
        lines: Their `COLOURS` come again after the last; few points are marked by dots.
        x_name: Of the axis.
        y_name: Of the axis.
        y_range: Ends of the axis; None = what the values need.
    """
    xs = [x for line in lines for x, y in line.points if y is not None]
    ys = [y for line in lines for _, y in line.points if y is not None]
    ys += [end for line in lines for interval in line.intervals for end in interval]
    (x_low, x_high), (y_low, y_high) = _range(xs), y_range or _range(ys)

    def x_at(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - RIGHT - LEFT)

    def y_at(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - BOTTOM - TOP)

    parts = [f'<text class="title middle" x="{WIDTH / 2}" y="18">{escape(title)}</text>']
    marks = ticks(y_low, y_high)
    for y, name in zip(marks, tick_labels(marks), strict=True):
        ends = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_at(y):.1f}" y2="{y_at(y):.1f}"'
        parts.append(f'<line class="grid" {ends}/>')
        parts.append(f'<text class="end" x="{LEFT - 6}" y="{y_at(y) + 4:.1f}">{name}</text>')
    marks = ticks(x_low, x_high, 6)
    for x, name in zip(marks, tick_labels(marks), strict=True):
        parts.append(f'<text class="middle" x="{x_at(x):.1f}" y="{HEIGHT - 28}">{name}</text>')
    across, middle = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    parts += [
        f'<text class="middle" x="{across}" y="{HEIGHT - 8}">{escape(x_name)}</text>',
        f'<text class="middle" transform="translate(14 {middle}) rotate(-90)">'
        f"{escape(y_name)}</text>",
    ]
    for number, (line, colour) in enumerate(zip(lines, itertools.cycle(COLOURS), strict=False)):
        known = [(n, x_at(x), y_at(y)) for n, (x, y) in enumerate(line.points) if y is not None]
        path = "L".join(f"{x:.1f} {y:.1f}" for _, x, y in known)
        if path:
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        for n, x, y in known:
            if len(known) <= MOST_DOTS:
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
            if line.intervals:
                low, high = (y_at(end) for end in line.intervals[n])
                ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"'
                parts.append(f'<line {ends} stroke="{colour}"/>')
            if line.notes:
                at = f'x="{x + 5:.1f}" y="{y - 5:.1f}"'
                parts.append(f'<text class="note" {at}>{escape(line.notes[n])}</text>')
        at = f'x="{WIDTH - RIGHT + 14}" y="{TOP + 12 + 16 * number}"'
        parts.append(f'<text {at} style="fill: {colour}">{escape(line.name)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}"><style>{_STYLE}</style><rect width="{WIDTH}" height="{HEIGHT}" '
        f'fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin
