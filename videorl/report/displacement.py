"""Whether a run pushed both videos of its pairs away: likelihood displacement."""

from __future__ import annotations

from itertools import pairwise

from videorl.report.contents import RunContents

DISPLACEMENT = 0.05
"""Relative rise of the error on chosen videos, against the reference's, that is warned of."""


def worst_displacement(run: RunContents) -> tuple[float, float, int] | None:
    """Return (error, margin, step) where the error on chosen videos rose while the margin grew.

    Both are measured against the reference, so they start at 0 after each swap. Compared are their
    values at the end of each stretch between two swaps; None = nothing to warn of.
    """
    if not run.rows:
        return None
    ends = [-1, *run.reference_swaps(), max(row["step"] for row in run.rows)]
    reached = [
        (error, margin, stop)
        for start, stop in pairwise(ends)
        if (error := _end(run, "dpo/winner_error_change", start, stop)) is not None
        and (margin := _end(run, "learn/margin", start, stop)) is not None
    ]
    error, margin, step = max(reached, default=(0.0, 0.0, 0))
    return None if error <= DISPLACEMENT or margin <= 0 else (error, margin, step)


def _end(run: RunContents, metric: str, start: int, stop: int) -> float | None:
    """Return the mean over the last quarter of the steps in (start, stop], None under 4 values."""
    values = [y for x, y in run.series(metric) if start < x <= stop and y is not None]
    quarter = len(values) // 4
    return sum(values[-quarter:]) / quarter if quarter else None
