"""Small line charts as inline SVG for the report, and numbers as it writes them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape

from videorl.report.svg import Plane, Points, padded, text, ticks

WIDTH, HEIGHT = 340, 170
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 8, 22
"""Margins of the plot in pixels, for the labels of the axes."""


def number(value: float | None) -> str:
    """Return a number with about three significant digits."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return f"{value}".replace("-", "−")
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        return f"{value:.1e}".replace("-", "−")
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    shown = f"{value:.{digits}f}"
    return (shown.rstrip("0").rstrip(".") if "." in shown else shown).replace("-", "−")


def fixed(value: float | None) -> str:
    """Return a score with three decimals, so that columns of scores line up."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def signed(value: float) -> str:
    """Return a difference of scores with its sign."""
    return f"{value:+.3f}".replace("-", "−")


def percent(value: float | None) -> str:
    """Return a relative change, e.g. +4.2 %."""
    return "–" if value is None else f"{100 * value:+.1f} %".replace("-", "−")


def smooth(series: Points) -> list[tuple[float, float | None]]:
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
    series: Points,
    *,
    note: str = "",
    swaps: Sequence[float] = (),
    level: tuple[float, str] | None = None,
    is_smoothed: bool = True,
    band: Sequence[tuple[float, float, float]] = (),
) -> str:
    """Return an HTML figure: raw values thin, their moving average thick.

    Args:
        title: Above the plot, with the first and the last value beside it if it is smoothed.
        series: (x, y) in order of x; None breaks the line.
        note: A line below the title.
        swaps: x of vertical lines, where the reference became the policy.
        level: Height and name of a horizontal line to compare with.
        is_smoothed: False draws the values only.
        band: (x, low, high) of intervals around the values, in order of x.
    """
    known = [y for _, y in series if y is not None]
    head = f"<figcaption><b>{escape(title)}</b>{_ends(known) if is_smoothed else ''}"
    head += f"<small>{escape(note)}</small>" if note else ""
    head += "</figcaption>"
    if not known:
        return f'<figure class="chart">{head}<p class="empty">no values</p></figure>'
    first, last = series[0][0], series[-1][0]
    edges = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM)
    across = (first, last if last > first else first + 1)
    heights = [*known, *([level[0]] if level else []), *(y for _, *ends in band for y in ends)]
    plane = Plane(*edges, across, padded(heights))
    whole = [x for x in ticks(first, last, 5) if x == round(x)] if last > first else [first]
    parts = [plane.rows(), plane.x_labels(whole), *(plane.column(x, "swap") for x in swaps)]
    if level:
        parts.append(plane.row(level[0], "level"))
        parts.append(text(plane.right, plane.y_at(level[0]) - 4, level[1], "level"))
    parts.append(plane.area(band, 'class="band"'))
    parts += _lines(plane, series, smooth(series) if is_smoothed else series)
    points = escape(json.dumps(_cursor_points(plane, series), separators=(",", ":")), quote=True)
    return (
        f'<figure class="chart">{head}<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title, quote=True)}" data-points="{points}">{"".join(parts)}</svg>'
        "</figure>"
    )


def path_chart(title: str, points: Sequence[tuple[float, float]], x_name: str) -> str:
    """Return an HTML figure of a way: points (at least two) joined in order, the last one marked.

    Args:
        title: Above the plot.
        points: (x, y), x in any order.
        x_name: What the horizontal axis shows.
    """
    edges = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM)
    plane = Plane(*edges, padded([x for x, _ in points]), padded([y for _, y in points]))
    drawn = [plane.rows(), plane.columns(), plane.path(points, 'class="line"')]
    drawn += [plane.dots(points, 2.5, 'class="dot"'), plane.dots(points[-1:], 5, 'class="dot"')]
    return (
        f'<figure class="chart"><figcaption><b>{escape(title)}</b><small>From left to right: '
        f"{escape(x_name)}. The large dot is the newest.</small></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{''.join(drawn)}</svg></figure>"
    )


def interval_bar(low: float, mean: float, high: float, reach: float) -> str:
    """Return an interval as a bar with a dot at its mean; the axis goes from -reach to reach."""
    plane = Plane(4, 136, 1, 15, (-reach, reach), (0, 1))
    drawn = [
        plane.column(0, "zero"),
        plane.path([(low, 0.5), (high, 0.5)], 'class="line"'),
        plane.dots([(mean, 0.5)], 3.5, 'class="dot"'),
    ]
    head = '<svg class="interval" viewBox="0 0 140 16" aria-hidden="true">'
    return f"{head}{''.join(drawn)}</svg>"


def _ends(known: list[float]) -> str:
    if len(known) < 2:
        return f"<span>{number(known[0])}</span>" if known else ""
    return f"<span>{number(known[0])} → {number(known[-1])}</span>"


def _lines(plane: Plane, series: Points, smoothed: Points) -> list[str]:
    """Return the smoothed line, the raw one if it differs, and dots where there are few values."""
    raw = [] if list(smoothed) == list(series) else [plane.path(series, 'class="raw"')]
    dots = plane.dots(series, 2.5, 'class="dot"') if len(series) <= 16 else ""
    return [*raw, plane.path(smoothed, 'class="line"'), dots]


def _cursor_points(plane: Plane, series: Points) -> list[list[float | str]]:
    """Return [x in pixels, y in pixels, x, y] of every value, which the report's script reads."""
    return [
        [round(plane.x_at(x), 1), round(plane.y_at(y), 1), f"{x:.0f}", number(y)]
        for x, y in series
        if y is not None
    ]
