"""Gains, intervals over seeds and verdicts, against values computed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from videorl.ablation.statistics import gain, paired_difference, verdict
from videorl.evaluation.corrections import _T_975, t_interval
from videorl.evaluation.statistics import Interval


def result(*values: list[float]) -> dict[str, Any]:
    """One evaluation of two prompts: the three dimensions, then their total."""
    names = ("visual_quality", "motion_quality", "text_alignment", "total")
    return {"evaluations": [{"step": 1, "values": dict(zip(names, values, strict=True))}]}


def test_an_interval_by_hand() -> None:
    found = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    # Standard deviation sqrt(2.5), over sqrt(5): 0.7071; t with 4 degrees of freedom: 2.776.
    assert found.mean == 3.0
    assert (found.low, found.high) == pytest.approx((3 - 1.9630, 3 + 1.9630), abs=1e-4)
    assert t_interval([2.0]) == Interval(2.0, -math.inf, math.inf)
    with pytest.raises(ValueError, match="at least one"):
        t_interval([])


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 30])
def test_the_quantiles_leave_out_a_fortieth(freedom: int) -> None:
    # Substituting x = tan(angle), the density can be integrated from 0 to infinity.
    angle = np.linspace(0, math.atan(_T_975[freedom - 1]), 200_001)
    density = (1 + np.tan(angle) ** 2 / freedom) ** (-(freedom + 1) / 2) / np.cos(angle) ** 2
    scale = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
    assert scale * np.trapezoid(density, angle) == pytest.approx(0.475, abs=2e-5)


def test_gains_and_regressions_by_hand() -> None:
    base = result([0.0, 0.0], [0.5, 0.5], [-0.5, 0.0], [0.0, 0.5])
    run = result([0.2, -0.1], [0.4, 0.6], [-0.5, 0.3], [0.1, 0.8])
    assert gain(run, base, "total") == pytest.approx(0.2)
    assert gain(run, base, "visual_quality") == pytest.approx(0.05)
    # Of the six, visual quality of the second prompt and motion quality of the first fell.
    assert gain(run, base, "regressions") == 1.0
    assert gain(base, base, "regressions") == 0.0


def test_differences_are_paired_by_seed() -> None:
    first, second = {0: 1.0, 1: 2.0, 2: 9.0}, {1: 1.5, 0: 0.5, 3: -9.0}
    assert paired_difference(first, second) == Interval(0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("interval", "sign", "said"),
    [
        (Interval(2, 1, 3), 1, "as published"),
        (Interval(2, 1, 3), -1, "opposite"),
        (Interval(-2, -3, -1), -1, "as published"),
        (Interval(-2, -3, -1), 1, "opposite"),
        (Interval(2, -1, 5), 1, "undecided"),
        (Interval(0, 0, 0), 1, "undecided"),
        (Interval(2, 1, 3), 0, "higher"),
        (Interval(-2, -3, -1), 0, "lower"),
        (Interval(2, -math.inf, math.inf), 1, "undecided"),
    ],
)
def test_verdicts(interval: Interval, sign: int, said: str) -> None:
    assert verdict(interval, sign) == said
