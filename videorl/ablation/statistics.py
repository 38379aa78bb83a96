"""Means and paired differences over training seeds, and the verdict on a published claim."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from videorl.evaluation.corrections import t_interval
from videorl.evaluation.statistics import Interval

DIMENSIONS = ("visual_quality", "motion_quality", "text_alignment")


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
