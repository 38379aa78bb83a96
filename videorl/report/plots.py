"""Line plots as SVG files: a single plot, or panels side by side.

General: give `line_plot` or `line_panels` named lines. All text is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from videorl.report.svg import Plane, Points, padded, page, text, ticks

WIDTH, HEIGHT = 740, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 196, 34, 46
"""Margins of `line_plot` in pixels; the right margin holds the legend."""
COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#475569")
"""Of lines, in order; then the same again, dashed."""
MOST_DOTS = 40
"""A line with more points has no dots."""

_PANEL_WIDTH, _PANEL_HEIGHT = 190, 170
_PANEL_LEFT, _PANEL_TOP, _PANEL_BOTTOM = 50, 24, 60
"""Margins of a panel in pixels; the lower margin holds the legend."""


@dataclass(frozen=True, slots=True)
class Line:
    """One named series."""

    name: str
    points: Points
    notes: Sequence[str] = ()
    """Text beside each point; empty = none."""
    intervals: Sequence[tuple[float, float]] = ()
    """Lowest and highest y of each point; empty = none."""
    behind: Sequence[Points] = ()
    """Faint lines of the same colour, e.g. the runs that `points` are the mean of."""


def line_plot(
    title: str,
    lines: Sequence[Line],
    *,
    x_name: str,
    y_name: str,
    y_range: tuple[float, float] | None = None,
) -> str:
    """Return a plot with a legend.

    Args:
        title: Above it.
        lines: Any number, drawn in this order.
        x_name: What the horizontal axis shows, with its unit.
        y_name: The same of the vertical axis.
        y_range: Ends of the vertical axis; None = what the values need.
    """
    plane = _plane(lines, (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM), y_range)
    turned = f'transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"'
    legend = [
        text(WIDTH - RIGHT + 14, TOP + 12 + 16 * number, line.name, colour=_colour(number))
        for number, line in enumerate(lines)
    ]
    return page(
        WIDTH,
        HEIGHT,
        [
            text(WIDTH / 2, 18, title, "title"),
            f"<g {turned}>{text(0, 0, y_name, 'x')}</g>",
            _drawn(plane, lines, x_name),
            *legend,
        ],
    )


def line_panels(panels: Mapping[str, Sequence[Line]], *, x_name: str) -> str:
    """Return a panel per title side by side, each to its own scale, with a shared legend below.

    Args:
        panels: Title -> lines; all have lines of the same names.
        x_name: What the horizontal axes show, with the unit.
    """
    parts: list[str] = []
    whole = _PANEL_LEFT + _PANEL_WIDTH + 10
    bottom = _PANEL_TOP + _PANEL_HEIGHT
    for number, (title, lines) in enumerate(panels.items()):
        left = number * whole + _PANEL_LEFT
        right = left + _PANEL_WIDTH
        parts.append(text((left + right) / 2, 14, title, "title"))
        parts.append(_drawn(_plane(lines, (left, right, _PANEL_TOP, bottom)), lines, x_name))
    parts += [
        text(_PANEL_LEFT + 120 * number, bottom + 52, line.name, colour=_colour(number))
        for number, line in enumerate(next(iter(panels.values()), ()))
    ]
    return page(whole * len(panels) + 10, bottom + _PANEL_BOTTOM, parts)


def _plane(
    lines: Sequence[Line],
    edges: tuple[float, float, float, float],
    y_range: tuple[float, float] | None = None,
) -> Plane:
    """Return the plane that all values of the lines lie in; `edges` as in `Plane`."""
    series = [points for line in lines for points in (line.points, *line.behind)]
    known = [(x, y) for points in series for x, y in points if y is not None]
    ends = [end for line in lines for interval in line.intervals for end in interval]
    needed = padded([*(y for _, y in known), *ends])
    return Plane(*edges, padded([x for x, _ in known]), y_range or needed)


def _drawn(plane: Plane, lines: Sequence[Line], x_name: str) -> str:
    """Return axes and lines."""
    axes = [
        plane.rows(),
        plane.x_labels(ticks(*plane.x_range, 6)),
        text((plane.left + plane.right) / 2, plane.bottom + 34, x_name, "x"),
    ]
    return "".join([*axes, *(_line(plane, line, number) for number, line in enumerate(lines))])


def _line(plane: Plane, line: Line, number: int) -> str:
    """Return a line with its dots, intervals and notes; points without y are left out."""
    colour = _colour(number)
    stroke, dash = f'stroke="{colour}"', ' stroke-dasharray="5 3"' * (number >= len(COLOURS))
    known = [(x, y) for x, y in line.points if y is not None]
    parts = [plane.path(faint, f'{stroke} stroke-opacity="0.25"') for faint in line.behind]
    parts.append(plane.path(known, f'{stroke} stroke-width="1.8"{dash}'))
    if len(known) <= MOST_DOTS:
        parts.append(plane.dots(known, 3, f'fill="{colour}"'))
    for index, (x, y) in enumerate(line.points):
        if y is None:
            continue
        if line.intervals:
            parts.append(plane.path([(x, end) for end in line.intervals[index]], stroke))
        if line.notes:
            parts.append(text(plane.x_at(x) + 5, plane.y_at(y) - 5, line.notes[index], "note"))
    return "".join(parts)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
