"""Held-out scores of several runs: each by itself, and against the first of them.

Where two evaluations share prompts and seeds, samples of the same prompt and seed are compared, so
that the difficulty of a prompt cancels; elsewhere the difference is said to be unpaired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from videorl.comparison.runs import ComparedRun
from videorl.evaluation.held_out import shared_prompts
from videorl.evaluation.statistics import Interval, paired_bootstrap, unpaired_bootstrap
from videorl.settings.rewards import RewardConfig
from videorl.types import ScoredCandidate, ScoredGroup

Kind = Literal["total", "dimension", "unseen"]
Value = Callable[[ScoredCandidate], float | None]
SCALE = ("name", "path", "label", "options")
"""Settings of a reward that say what its dimensions mean;"""
WEIGHTS = ("weight", "dimension_weights")
"""and those that say how totals are made of them."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A run's mean less that of the first run, with its 95 % interval."""

    interval: Interval
    paired: bool
    """Two or more of the same prompts, with the same seeds; else each list is resampled alone."""
    num_prompts: int
    """Shared prompts; of an unpaired difference those of this run."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One number of one run on held-out prompts; None where it was not measured."""

    base: Interval | None
    aligned: Interval | None
    change: Difference | None
    """From the run's own base to its aligned policy."""
    against_first: Difference | None
    """None for the first run, and where both are not on the same scale."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that at least one run has measured."""

    name: str
    kind: Kind
    runs: Mapping[str, Measured]
    """By the runs' labels."""


def measure(runs: Sequence[ComparedRun]) -> list[Metric]:
    """Return the total, each dimension and each unseen metric of the runs' evaluations."""
    names = _names(runs)
    return [
        Metric(name, kind, {run.label: _measured(runs[0], run, kind, name) for run in runs})
        for kind, name in names
    ]


def scale_problem(first: ComparedRun, other: ComparedRun, kind: Kind) -> str:
    """Return which setting of the rewards puts two runs' scores on different scales, or ""."""
    if kind == "unseen":
        return ""
    looked_at = SCALE if kind == "dimension" else (*SCALE, *WEIGHTS)
    mine, theirs = _rewards(first), _rewards(other)
    if len(mine) != len(theirs):
        return "rewards"
    for index, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        for field in looked_at:
            if a.get(field) != b.get(field):
                return f"rewards.{index}.{field}"
    return ""


def difference(
    first: Sequence[ScoredGroup], other: Sequence[ScoredGroup], value: Value
) -> Difference | None:
    """Return the mean of `other` less that of `first`, paired if they share prompts and seeds.

    Returns:
        None if either list has no such value.
    """
    mine, theirs = _by_seed(first, value), _by_seed(other, value)
    if not mine or not theirs:
        return None
    shared = [
        (mine[prompt], theirs[prompt], mine[prompt].keys() & theirs[prompt].keys())
        for prompt in mine
        if prompt in theirs
    ]
    pairs = [
        (_mean(a[seed] for seed in seeds), _mean(b[seed] for seed in seeds))
        for a, b, seeds in shared
        if seeds
    ]
    if len(pairs) > 1:  # the interval of a single prompt would be a point
        before, after = zip(*pairs, strict=True)
        return Difference(paired_bootstrap(before, after), True, len(pairs))
    return Difference(unpaired_bootstrap(_means(mine), _means(theirs)), False, len(theirs))


def _names(runs: Sequence[ComparedRun]) -> list[tuple[Kind, str]]:
    found: dict[tuple[Kind, str], None] = {}
    samples = [
        groups[0].candidates[0] for run in runs for groups in (run.before, run.after) if groups
    ]
    found |= {("total", "total"): None} if samples else {}
    found |= {("dimension", name): None for sample in samples for name in sample.score.dimensions}
    found |= {("unseen", name): None for sample in samples for name in sample.unseen}
    return list(found)


def _value(kind: Kind, name: str) -> Value:
    if kind == "total":
        return lambda scored: scored.score.total
    if kind == "dimension":
        return lambda scored: scored.score.dimensions.get(name)
    return lambda scored: scored.unseen.get(name)


def _measured(first: ComparedRun, run: ComparedRun, kind: Kind, name: str) -> Measured:
    value = _value(kind, name)
    is_comparable = run is not first and not scale_problem(first, run, kind)
    return Measured(
        base=_level(_base(run), value),
        aligned=_level(run.after, value),
        change=difference(run.before, run.after, value),
        against_first=difference(first.after, run.after, value) if is_comparable else None,
    )


def _base(run: ComparedRun) -> Sequence[ScoredGroup]:
    """Return the base's samples that have the prompts and seeds of aligned ones, if any have."""
    if not run.after:
        return run.before
    shared = zip(*shared_prompts(run.before, run.after), strict=True)
    return [replace(b, candidates=b.candidates[: len(a.candidates)]) for b, a in shared]


def _level(groups: Sequence[ScoredGroup], value: Value) -> Interval | None:
    means = _means(_by_seed(groups, value))
    return paired_bootstrap([0.0] * len(means), means) if means else None


def _by_seed(
    groups: Sequence[ScoredGroup], value: Value
) -> dict[tuple[str, str], dict[int, float]]:
    """Return prompt (text and picture) -> seed -> value."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for group in groups:
        values = {
            scored.candidate.seed: number
            for scored in group.candidates
            if (number := value(scored)) is not None
        }
        if values:
            found[group.prompt.text, group.prompt.image or ""] = values
    return found


def _means(by_seed: Mapping[tuple[str, str], Mapping[int, float]]) -> list[float]:
    return [_mean(values.values()) for values in by_seed.values()]


def _mean(values: Iterable[float]) -> float:
    return math.fsum(found := list(values)) / len(found)


def _rewards(run: ComparedRun) -> list[dict[str, Any]]:
    unset = asdict(RewardConfig())  # of a run that was written before there was a setting
    return [unset | reward for reward in run.recipe.get("rewards") or []]
