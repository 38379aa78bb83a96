"""Plots of a study as SVG: arms with their intervals, and gains over training steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from videorl.ablation.summary import Seeds, gains, interval
from videorl.report.charts import tick_labels, ticks

Arms = Mapping[str, Seeds]

_PANEL, _ROW, _LABELS = 190, 24, 130
"""Width of a panel, height of an arm's row, and width of the arms' names, in pixels."""
_HEIGHT = 170
"""Of a curve's panel."""
_COLOURS = ("#2563eb", "#c2410c", "#15803d", "#7e22ce")
_STYLE = """
text { font: 11px sans-serif; fill: #444 } .x { text-anchor: middle } .y { text-anchor: end }
.title { font-weight: bold; fill: #222; text-anchor: middle }
.grid { stroke: #e5e5e5 } .zero { stroke: #999 }
.interval { stroke: #2563eb; stroke-width: 2 } .mean { fill: #2563eb }
.seed { fill: #2563eb; fill-opacity: .25 } .line { fill: none; stroke-width: 2 }
.thin { fill: none; stroke-opacity: .25 }
"""


def arms_plot(arms: Arms, measures: Mapping[str, str]) -> str:
    """Return a panel per measure with a row per arm: seeds faint, their mean, its interval.

    Args:
        arms: Those with a finished run, by label.
        measures: Measure -> title of its panel.
    """
    height = 24 + _ROW * len(arms) + 24
    names = [
        f'<text class="y" x="{_LABELS - 10}" y="{_row(index) + 4}">{escape(label)}</text>'
        for index, label in enumerate(arms)
    ]
    panels = [
        f'<g transform="translate({_LABELS + number * (_PANEL + 14)} 0)">'
        f"{_panel(arms, measure, title, height)}</g>"
        for number, (measure, title) in enumerate(measures.items())
    ]
    width = _LABELS + len(measures) * (_PANEL + 14)
    return _page(width, height, [*names, *panels])


def _row(index: int) -> int:
    return 24 + _ROW * index + _ROW // 2


def _panel(arms: Arms, measure: str, title: str, height: int) -> str:
    intervals = [interval(runs, measure) for runs in arms.values()]
    seeds = [list(gains(runs, measure).values()) for runs in arms.values()]
    ends = [end for one in intervals for end in (one.low, one.high) if math.isfinite(end)]
    low, high = _range([0.0, *ends, *(value for each in seeds for value in each)])

    def at(value: float) -> float:
        return (value - low) / (high - low) * _PANEL

    parts = [f'<text class="title" x="{_PANEL / 2}" y="14">{escape(title)}</text>']
    marks = ticks(low, high)
    for value, name in zip(marks, tick_labels(marks), strict=True):
        kind = "zero" if value == 0 else "grid"
        x = f"{at(value):.1f}"
        parts.append(f'<line class="{kind}" x1="{x}" x2="{x}" y1="24" y2="{height - 22}"/>')
        parts.append(f'<text class="x" x="{x}" y="{height - 8}">{name}</text>')
    for index, (one, values) in enumerate(zip(intervals, seeds, strict=True)):
        y = _row(index)
        parts += [f'<circle class="seed" cx="{at(v):.1f}" cy="{y}" r="3"/>' for v in values]
        if math.isfinite(one.low):
            parts.append(
                f'<line class="interval" x1="{at(one.low):.1f}" x2="{at(one.high):.1f}" '
                f'y1="{y}" y2="{y}"/>'
            )
        parts.append(f'<circle class="mean" cx="{at(one.mean):.1f}" cy="{y}" r="4"/>')
    return "".join(parts)


def curves_plot(arms: Arms, measures: Mapping[str, str]) -> str:
    """Return a panel per measure: the mean gain over training steps, each seed thin behind it."""
    panels = [
        f'<g transform="translate({50 + number * (_PANEL + 60)} 0)">'
        f"{_curves(arms, measure, title)}</g>"
        for number, (measure, title) in enumerate(measures.items())
    ]
    legend = [
        f'<text x="{50 + 120 * index}" y="{_HEIGHT + 74}" style="fill:{colour}">'
        f"{escape(label)}</text>"
        for index, (label, colour) in enumerate(zip(arms, _COLOURS, strict=False))
    ]
    return _page(len(measures) * (_PANEL + 60) + 20, _HEIGHT + 84, [*panels, *legend])


def _curves(arms: Arms, measure: str, title: str) -> str:
    lines = {
        label: [[(0, 0.0), *((one["step"], one[measure]) for one in run["curve"])] for run in runs]
        for label, runs in arms.items()
    }
    points = [point for each in lines.values() for line in each for point in line]
    low, high = _range([y for _, y in points])
    last = max(x for x, _ in points)

    def at(x: float, y: float) -> tuple[float, float]:
        return x / last * _PANEL, 24 + (high - y) / (high - low) * _HEIGHT

    parts = [f'<text class="title" x="{_PANEL / 2}" y="14">{escape(title)}</text>']
    marks = ticks(low, high)
    for value, name in zip(marks, tick_labels(marks), strict=True):
        y = at(0, value)[1]
        parts.append(
            f'<line class="{"zero" if value == 0 else "grid"}" x1="0" x2="{_PANEL}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/><text class="y" x="-6" y="{y + 4:.1f}">{name}</text>'
        )
    for x in ticks(0, last):
        parts.append(f'<text class="x" x="{at(x, 0)[0]:.1f}" y="{_HEIGHT + 40}">{x:.0f}</text>')
    parts.append(f'<text class="x" x="{_PANEL / 2}" y="{_HEIGHT + 56}">optimizer steps</text>')
    for each, colour in zip(lines.values(), _COLOURS, strict=False):
        means = [(x, sum(ys) / len(ys)) for x, ys in _columns(each)]
        for kind, line in [*(("thin", one) for one in each), ("line", means)]:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(x, y) for x, y in line))
            parts.append(f'<polyline class="{kind}" style="stroke:{colour}" points="{path}"/>')
    return "".join(parts)


def _columns(lines: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, list[float]]]:
    """Return x -> the y of all lines there; all have the same x."""
    return [(column[0][0], [y for _, y in column]) for column in zip(*lines, strict=True)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 1.0
    return low - margin, high + margin


def _page(width: int, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><style>{_STYLE}</style>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
