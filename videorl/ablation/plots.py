"""Plots of a study as SVG: arms with their intervals, and gains over training steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

from videorl.ablation.summary import Seeds, gains, interval
from videorl.report.plots import COLOURS, Line, line_panels
from videorl.report.svg import Plane, Points, padded, page, text

Arms = Mapping[str, Seeds]

_PANEL, _ROW, _LABELS = 190, 24, 130
"""Width of a panel, height of an arm's row, and width of the arms' names, in pixels."""
_TOP = 24
_FILL = f'fill="{COLOURS[0]}"'


def arms_plot(arms: Arms, measures: Mapping[str, str]) -> str:
    """Return a panel per measure with a row per arm: seeds faint, their mean, its interval.

    Args:
        arms: Those with a finished run, by label.
        measures: Measure -> title of its panel.
    """
    bottom = _TOP + _ROW * len(arms)
    parts = [
        text(_LABELS - 10, _TOP + _ROW * (index + 0.5) + 4, label, "y")
        for index, label in enumerate(arms)
    ]
    for number, (measure, title) in enumerate(measures.items()):
        left = _LABELS + number * (_PANEL + 14)
        parts.append(text(left + _PANEL / 2, 14, title, "title"))
        parts.append(_panel(arms, measure, (left, left + _PANEL, _TOP, bottom)))
    return page(_LABELS + len(measures) * (_PANEL + 14), bottom + 24, parts)


def _panel(arms: Arms, measure: str, edges: tuple[float, float, float, float]) -> str:
    """Return a panel; `edges` as in `Plane`."""
    intervals = [interval(runs, measure) for runs in arms.values()]
    seeds = [list(gains(runs, measure).values()) for runs in arms.values()]
    # One seed has no interval: its ends are infinite.
    ends = [end for found in intervals for end in (found.low, found.high) if math.isfinite(end)]
    x_range = padded([0.0, *ends, *(gain for values in seeds for gain in values)])
    plane = Plane(*edges, x_range, (len(arms), 0))
    parts = [plane.columns()]
    for index, (found, values) in enumerate(zip(intervals, seeds, strict=True)):
        y = index + 0.5
        parts.append(plane.dots([(x, y) for x in values], 3, f'{_FILL} fill-opacity="0.25"'))
        if math.isfinite(found.low):
            look = f'stroke="{COLOURS[0]}" stroke-width="2"'
            parts.append(plane.path([(found.low, y), (found.high, y)], look))
        parts.append(plane.dots([(found.mean, y)], 4, _FILL))
    return "".join(parts)


def curves_plot(arms: Arms, measures: Mapping[str, str]) -> str:
    """Return a panel per measure: the mean gain over training steps, each seed faint behind it."""
    panels = {
        title: [
            Line(label, _mean(runs, measure), behind=_curves(runs, measure))
            for label, runs in arms.items()
        ]
        for measure, title in measures.items()
    }
    return line_panels(panels, x_name="optimizer steps")


def _curves(runs: Seeds, measure: str) -> list[Points]:
    """Return (step, gain) of every seed, from 0 at step 0."""
    return [[(0, 0.0), *((at["step"], at[measure]) for at in run["curve"])] for run in runs]


def _mean(runs: Seeds, measure: str) -> Points:
    """Return the mean over seeds, which all have the same steps."""
    steps = [0, *(at["step"] for at in runs[0]["curve"])]
    rows = [[0.0, *(at[measure] for at in run["curve"])] for run in runs]
    return [(x, fmean(column)) for x, column in zip(steps, zip(*rows, strict=True), strict=True)]
