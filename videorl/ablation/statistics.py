"""Means and paired differences over training seeds, and the verdict on a published claim."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from videorl.evaluation.statistics import Interval

DIMENSIONS = ("visual_quality", "motion_quality", "text_alignment")

_T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5 % quantile of Student's t with 1, 2, … 30 degrees of freedom."""


def t_interval(values: Sequence[float]) -> Interval:
    """Return the mean with its 95 % interval over seeds, by Student's t.

    Not bootstrapped: percentiles of a handful of values give intervals that are far too short.
    One value has an infinite interval. Above 31 values the quantile is that of 31.

    Raises:
        ValueError: There is no value.
    """
    if not values:
        raise ValueError("expected at least one value")
    mean = fmean(values)
    if len(values) == 1:
        return Interval(mean, -math.inf, math.inf)
    quantile = _T_975[min(len(values) - 1, len(_T_975)) - 1]
    reach = quantile * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - reach, mean + reach)


def gain(result: Mapping[str, Any], base: Mapping[str, Any], name: str, at: int = -1) -> float:
    """Return how much a run gained on its base in one measure, as a mean over held-out prompts.

    Args:
        result: The run's result.
        base: The result of its base, on the same prompts and seeds.
        name: A measure of `videorl.ablation.runs.values`, or `regressions`: how many of the three
            dimensions fell below the base, per prompt (lower is better).
        at: Index of the evaluation; the last one by default.
    """
    after, before = result["evaluations"][at]["values"], base["evaluations"][0]["values"]
    if name == "regressions":
        fell = [
            new < old
            for dimension in DIMENSIONS
            for new, old in zip(after[dimension], before[dimension], strict=True)
        ]
        return sum(fell) / len(after[DIMENSIONS[0]])
    return fmean(new - old for new, old in zip(after[name], before[name], strict=True))


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Interval:
    """Return `first` minus `second` over the seeds that both have.

    Raises:
        ValueError: They share none.
    """
    shared = sorted(first.keys() & second.keys())
    return t_interval([first[seed] - second[seed] for seed in shared])


def verdict(difference: Interval, sign: int) -> str:
    """Say whether an interval agrees with a published direction.

    Args:
        difference: Gain of the arm that the paper prefers, minus that of the other.
        sign: Sign of the published difference, 1 or -1; 0 = none is published.
    """
    if difference.low <= 0 <= difference.high:
        return "undecided"
    found = 1 if difference.low > 0 else -1
    if sign == 0:
        return "higher" if found > 0 else "lower"
    return "as published" if found == sign else "opposite"
