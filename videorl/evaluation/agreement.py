"""How well a reward model agrees with people: accuracy over pairs, and rank correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class PairwiseAccuracy:
    """Shares of the pairs on which a model agrees with people, in [0, 1]."""

    with_ties: float | None
    """With the best tie threshold; None without a pair."""
    without_ties: float | None
    """Of the pairs on which people have a preference; None if there is none."""
    tie_threshold: float | None
    """The |margin| up to which the model's scores count as equal in `with_ties`."""
    num_pairs: int
    num_human_ties: int


def pairwise_accuracy(labels_N: npt.ArrayLike, margins_N: npt.ArrayLike) -> PairwiseAccuracy:
    """Compare margins with human labels as VideoGen-RewardBench does (VideoAlign, calc_accuracy).

    With ties, after Deutsch et al. (arXiv 2305.14324, Algorithm 1): pairs become model ties one by
    one in ascending order of |margin|, and the best accuracy on the way counts. Where VideoAlign's
    code departs from the algorithm, this follows the code: pairs of equal |margin| also become ties
    one by one, in the given order, so that scores with few values can reach an accuracy that no
    threshold gives; and at least one pair is a tie. Without ties, a margin of 0 counts as wrong.

    Args:
        labels_N: 1 where people prefer A, -1 where they prefer B, 0 where neither.
        margins_N: Score of A - score of B, finite.

    Raises:
        ValueError: The lengths differ, a label is another number, or a margin is not finite.
    """
    labels, margins = np.asarray(labels_N, np.float64), np.asarray(margins_N, np.float64)
    if labels.shape != margins.shape or labels.ndim != 1:
        raise ValueError(f"expected equal lengths [N], got {labels.shape} and {margins.shape}")
    if not np.isin(labels, (-1, 0, 1)).all():
        raise ValueError(f"expected labels 1, -1 or 0, got {np.unique(labels).tolist()}")
    if not np.isfinite(margins).all():
        raise ValueError("expected finite margins, got NaN or infinity")
    is_tie_N = labels == 0
    is_right_N = labels * margins > 0
    num_pairs, num_ties = len(labels), int(is_tie_N.sum())
    without_ties = float(is_right_N[~is_tie_N].mean()) if num_ties < num_pairs else None
    if not num_pairs:
        return PairwiseAccuracy(None, None, None, 0, 0)
    order = np.argsort(np.abs(margins), kind="stable")
    right_after_N = (
        is_right_N.sum() - np.cumsum(is_right_N[order]) + np.cumsum(is_tie_N[order])
    ) / num_pairs
    best = int(right_after_N.argmax())
    threshold = float(np.abs(margins[order[best]]))
    return PairwiseAccuracy(
        float(right_after_N[best]), without_ties, threshold, num_pairs, num_ties
    )


def spearman(first_N: npt.ArrayLike, second_N: npt.ArrayLike) -> float | None:
    """Return Spearman's rank correlation in [-1, 1], equal values sharing the mean of their ranks.

    None where it does not exist: fewer than two values, or all of one side equal.

    Raises:
        ValueError: The lengths differ, or a value is not finite.
    """
    first, second = np.asarray(first_N, np.float64), np.asarray(second_N, np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"expected equal lengths [N], got {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("expected finite values, got NaN or infinity")
    if len(np.unique(first)) < 2 or len(np.unique(second)) < 2:
        return None
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return ranks from 1, ties averaged."""
    _, which_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[which_N]
