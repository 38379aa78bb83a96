"""The summary of an evaluation: what rose, what fell, and with what confidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from videorl.evaluation.statistics import (
    Interval,
    best_of_k_curve,
    paired_bootstrap,
    win_rate,
)
from videorl.evaluation.text_table import text_table
from videorl.types import ScoredCandidate, ScoredGroup

_Samples: TypeAlias = Sequence[Sequence[ScoredCandidate]]
"""[P] prompts with equal numbers of samples."""
_Value: TypeAlias = Callable[[ScoredCandidate], float]

BEST_OF = (8, 16)
"""An aligned sample is compared with the best of so many base samples."""

MAX_DYNAMIC_DEGREE_LOSS = 0.10
"""Share of the base's dynamic degree that may be lost; many rewards prefer still videos."""


@dataclass(frozen=True, slots=True)
class Change:
    """Means over held-out prompts before and after, with the paired interval of the difference."""

    before: float
    after: float
    difference: Interval


@dataclass(frozen=True, slots=True)
class UnseenChange:
    """Means of a metric that nothing optimises; `relative` is None where `before` is 0."""

    before: float
    after: float
    relative: float | None


@dataclass(frozen=True, slots=True)
class EvaluationSummary:
    """Held-out results of the aligned policy and of the base, with the same prompts and seeds."""

    num_prompts: int
    num_base_samples: int
    """Per prompt; all of them make the best-of-k curve, and the first of them are compared with the
    aligned samples of the same seeds."""
    num_aligned_samples: int
    total: Change
    dimensions: Mapping[str, Change]
    unseen: Mapping[str, UnseenChange]
    best_of_k: Mapping[int, float]
    """k -> mean total of the best of k samples of the base."""
    win_rate: float
    """Share of prompts with a higher total after; a tie counts half."""
    verdicts: Mapping[str, bool]
    """Claim -> whether it holds; a claim that cannot be judged is absent."""

    def to_dict(self) -> dict[str, Any]:
        """Return what `json.dump` writes."""
        return dataclasses.asdict(self) | {
            "best_of_k": {str(k): value for k, value in self.best_of_k.items()}
        }


def summarise(before: Sequence[ScoredGroup], after: Sequence[ScoredGroup]) -> EvaluationSummary:
    """Compare the aligned policy with the base.

    Args:
        before: One group of G base samples per held-out prompt.
        after: Groups of the same prompts in the same order, with 1..G aligned samples; the j-th
            has the seed of the j-th base sample, and only samples that share a seed are compared.

    Raises:
        ValueError: The groups do not match, or are not all of the same size.
    """
    _check_match(before, after)
    samples = len(after[0].candidates)
    base = [group.candidates[:samples] for group in before]
    aligned = [group.candidates for group in after]
    first = before[0].candidates[0]
    total = _change(base, aligned, _total)
    dimensions = {
        name: _change(base, aligned, lambda scored, name=name: scored.score.dimensions[name])
        for name in first.score.dimensions
    }
    everyone = [scored for groups in (base, aligned) for group in groups for scored in group]
    shared = [name for name in first.unseen if all(name in each.unseen for each in everyone)]
    unseen = {name: _unseen_change(base, aligned, name) for name in shared}
    curve = best_of_k_curve([[_total(scored) for scored in group.candidates] for group in before])
    return EvaluationSummary(
        num_prompts=len(before),
        num_base_samples=len(before[0].candidates),
        num_aligned_samples=samples,
        total=total,
        dimensions=dimensions,
        unseen=unseen,
        best_of_k=curve,
        win_rate=win_rate(_means(base, _total), _means(aligned, _total)),
        verdicts=_verdicts(total, dimensions, unseen, curve),
    )


def _check_match(before: Sequence[ScoredGroup], after: Sequence[ScoredGroup]) -> None:
    if not before or _prompts_of(before) != _prompts_of(after):
        raise ValueError(
            "expected the same held-out prompts before and after, at least one; got "
            f"{len(before)} and {len(after)} (see videorl.evaluation.held_out.shared_prompts)"
        )
    for groups in (before, after):
        sizes = {len(group.candidates) for group in groups}
        if len(sizes) != 1 or 0 in sizes:
            raise ValueError(f"expected as many samples of every prompt, got {sorted(sizes)}")
    for base, aligned in zip(before, after, strict=True):
        seeds = [scored.candidate.seed for scored in aligned.candidates]
        if seeds != [scored.candidate.seed for scored in base.candidates[: len(seeds)]]:
            raise ValueError(f"the seeds of prompt {base.prompt.text!r} differ before and after")


def _prompts_of(groups: Sequence[ScoredGroup]) -> list[tuple[int, str]]:
    return [(group.prompt.index, group.prompt.text) for group in groups]


def _total(scored: ScoredCandidate) -> float:
    return scored.score.total


def _means(groups: _Samples, value: _Value) -> np.ndarray:
    """Return the mean over samples of every prompt, [P]."""
    return np.array([np.mean([value(scored) for scored in group]) for group in groups])


def _change(base: _Samples, aligned: _Samples, value: _Value) -> Change:
    before_P, after_P = _means(base, value), _means(aligned, value)
    interval = paired_bootstrap(before_P, after_P)
    return Change(float(before_P.mean()), float(after_P.mean()), interval)


def _unseen_change(base: _Samples, aligned: _Samples, name: str) -> UnseenChange:
    before = float(_means(base, lambda scored: scored.unseen[name]).mean())
    after = float(_means(aligned, lambda scored: scored.unseen[name]).mean())
    return UnseenChange(before, after, (after - before) / abs(before) if before else None)


def _verdicts(
    total: Change,
    dimensions: Mapping[str, Change],
    unseen: Mapping[str, UnseenChange],
    curve: Mapping[int, float],
) -> dict[str, bool]:
    verdicts = {"reward_rose": total.difference.low > 0}
    for k in BEST_OF:
        if k in curve:
            verdicts[f"beats_best_of_{k}"] = total.after >= curve[k]
    verdicts["no_dimension_fell"] = all(
        change.difference.mean >= 0 for change in dimensions.values()
    )
    if "dynamic_degree" in unseen and unseen["dynamic_degree"].relative is not None:
        relative = unseen["dynamic_degree"].relative
        verdicts["dynamic_degree_kept"] = relative >= -MAX_DYNAMIC_DEGREE_LOSS
    return verdicts


def format_summary(summary: EvaluationSummary) -> str:
    """Return the summary as a plain text table."""
    rows = [("", "before", "after", "change", "95 % interval")]
    for name, change in {"total": summary.total, **summary.dimensions}.items():
        interval = f"[{change.difference.low:+.3f}, {change.difference.high:+.3f}]"
        mean = f"{change.difference.mean:+.3f}"
        rows.append((name, f"{change.before:.3f}", f"{change.after:.3f}", mean, interval))
    for name, unseen in summary.unseen.items():
        means = f"{unseen.before:.3f}", f"{unseen.after:.3f}"
        relative = "" if unseen.relative is None else f"{unseen.relative:+.1%}"
        rows.append((f"{name} (unseen)", *means, relative, ""))
    shown = [k for k in (1, 2, 4, 8, 16, 32, 64) if k in summary.best_of_k]
    curve = "  ".join(f"{k}: {summary.best_of_k[k]:.3f}" for k in shown)
    return "\n".join(
        [
            f"{summary.num_prompts} held-out prompts, the same seeds before and after",
            text_table(rows, right=range(1, 5)),
            f"best of k samples of the base   {curve}",
            f"prompts won                     {summary.win_rate:.0%}",
            *(f"{'yes' if held else 'NO ':<4}{name}" for name, held in summary.verdicts.items()),
        ]
    )
