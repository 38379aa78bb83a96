"""What every drawing is made of: a plane with axes of round numbers, paths, dots, and a page.

General: knows nothing of what is drawn. Functions return SVG elements as text. How they look is up
to the CSS classes `grid`, `zero`, `x` and `y`, which `page` defines and the report has its own of.
Line plots are ready-made in `videorl.report.plots`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float | None]]
"""(x, y) in drawing order; what has no y is not drawn."""

_STYLE = """
text { font: 12px sans-serif; fill: #444 } .x { text-anchor: middle } .y { text-anchor: end }
.title { font-weight: bold; fill: #222; text-anchor: middle }
.grid { stroke: #ddd } .zero { stroke: #999 } .note { font-size: 10px } path { fill: none }
"""


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
    if len(values) < 2:
        return [f"{value:g}".replace("-", "−") for value in values]
    digits = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9))
    if digits > 4 or max(map(abs, values)) >= 1e5:
        return [f"{value:.3g}".replace("e-0", "e-").replace("-", "−") for value in values]
    return [f"{value + 0.0:.{digits}f}".replace("-", "−") for value in values]


def padded(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of an axis for these values: 6 % more than they need, never empty."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


@dataclass(frozen=True, slots=True)
class Plane:
    """A rectangle of a drawing, and the values at its edges."""

    left: float
    right: float
    top: float
    bottom: float
    """Edges in pixels; y grows downwards."""
    x_range: tuple[float, float]
    """Values at the left and the right edge, which differ."""
    y_range: tuple[float, float]
    """Values at the bottom and the top edge, which differ."""

    def x_at(self, x: float) -> float:
        """Return where a value lies, in pixels."""
        low, high = self.x_range
        return self.left + (x - low) / (high - low) * (self.right - self.left)

    def y_at(self, y: float) -> float:
        """Return where a value lies, in pixels."""
        low, high = self.y_range
        return self.bottom + (y - low) / (high - low) * (self.top - self.bottom)

    def rows(self) -> str:
        """Return grid lines at round y, with labels on the left."""
        marks, parts = ticks(*self.y_range), []
        for y, label in zip(marks, tick_labels(marks), strict=True):
            parts.append(self.row(y, "grid" if y else "zero"))
            parts.append(text(self.left - 6, self.y_at(y) + 4, label, "y"))
        return "".join(parts)

    def columns(self) -> str:
        """Return grid lines at round x, with labels below."""
        marks = ticks(*self.x_range)
        drawn = [self.column(x, "grid" if x else "zero") for x in marks]
        return "".join([*drawn, self.x_labels(marks)])

    def x_labels(self, marks: Sequence[float]) -> str:
        """Return labels below, without lines."""
        labels = zip(marks, tick_labels(marks), strict=True)
        return "".join(text(self.x_at(x), self.bottom + 16, label, "x") for x, label in labels)

    def row(self, y: float, css: str) -> str:
        """Return a horizontal line from edge to edge."""
        at = f"{self.y_at(y):.1f}"
        return f'<line class="{css}" x1="{self.left}" x2="{self.right}" y1="{at}" y2="{at}"/>'

    def column(self, x: float, css: str) -> str:
        """Return a vertical line from edge to edge."""
        at = f"{self.x_at(x):.1f}"
        return f'<line class="{css}" x1="{at}" x2="{at}" y1="{self.top}" y2="{self.bottom}"/>'

    def path(self, points: Points, look: str) -> str:
        """Return a line through the points, broken where one has no y.

        Args:
            points: What to connect.
            look: Attributes, e.g. `class="line"`.
        """
        commands, pen = [], "M"
        for x, y in points:
            if y is None:
                pen = "M"
            else:
                commands.append(f"{pen}{self.x_at(x):.1f} {self.y_at(y):.1f}")
                pen = "L"
        return f'<path {look} d="{"".join(commands)}"/>' if commands else ""

    def area(self, band: Sequence[tuple[float, float, float]], look: str) -> str:
        """Return the area between the lower and the upper ends of a band of (x, low, high)."""
        around = [(x, low) for x, low, _ in band] + [(x, high) for x, _, high in reversed(band)]
        corners = " ".join(f"{self.x_at(x):.1f},{self.y_at(y):.1f}" for x, y in around)
        return f'<polygon {look} points="{corners}"/>' if len(band) > 1 else ""

    def dots(self, points: Points, radius: float, look: str) -> str:
        """Return a dot per point, `radius` in pixels; `look` as of `path`."""
        return "".join(
            f'<circle {look} cx="{self.x_at(x):.1f}" cy="{self.y_at(y):.1f}" r="{radius}"/>'
            for x, y in points
            if y is not None
        )


def text(x: float, y: float, words: str, css: str = "", colour: str = "") -> str:
    """Return escaped text, which begins at a place, or is centred there or ends there.

    Args:
        x: Pixels from the left.
        y: Pixels from the top to the base line.
        words: What it says.
        css: `x` or `title` for centred text, `y` for text that ends there, or another class.
        colour: Instead of that of the class.
    """
    look = f' class="{css}"' if css else ""
    look += f' style="fill: {colour}"' if colour else ""
    return f'<text{look} x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def page(width: float, height: float, parts: Iterable[str], style: str = "") -> str:
    """Return an SVG file on white.

    Args:
        width: In pixels.
        height: In pixels.
        parts: The elements.
        style: More CSS.
    """
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{_STYLE}{style}</style><rect width="{width}" height="{height}" '
        f'fill="#fff"/>{"".join(parts)}</svg>\n'
    )
