"""Statistics of paired comparisons: the same prompts and seeds before and after training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the ends of its confidence interval."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    before_N: npt.ArrayLike,
    after_N: npt.ArrayLike,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Return the mean of `after - before` with its percentile bootstrap interval.

    Prompts are resampled, each with both of its values, so that their different difficulty cancels.

    Args:
        before_N: One finite value per prompt.
        after_N: One finite value per prompt, in the same order.
        num_resamples: Bootstrap samples (> 0).
        seed: Seed of the resampling; equal arguments give equal intervals.
        confidence: Share of the bootstrap means inside the interval, in (0, 1).

    Raises:
        ValueError: The lengths differ, there is no prompt, or a value is not finite.
    """
    before, after = np.asarray(before_N, np.float64), np.asarray(after_N, np.float64)
    if before.shape != after.shape or before.ndim != 1 or not before.size:
        raise ValueError(f"expected equal lengths [N > 0], got {before.shape} and {after.shape}")
    difference_N = after - before
    if not np.isfinite(difference_N).all():
        raise ValueError("expected finite values, got NaN or infinity")
    means = _resampled_means(difference_N, num_resamples, np.random.default_rng(seed))
    return _interval(float(difference_N.mean()), means, confidence)


def _resampled_means(
    values_N: npt.NDArray[np.float64], num_resamples: int, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return the mean of each bootstrap sample, [num_resamples]."""
    means = np.empty(num_resamples)
    # In blocks, to keep the memory small for thousands of prompts.
    for start in range(0, num_resamples, 1000):
        stop = min(start + 1000, num_resamples)
        drawn = generator.integers(0, values_N.size, (stop - start, values_N.size))
        means[start:stop] = values_N[drawn].mean(axis=1)
    return means


def _interval(mean: float, resampled: npt.NDArray[np.float64], confidence: float) -> Interval:
    """Return a mean with the percentiles of its bootstrap samples."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return Interval(mean, float(low), float(high))


def best_of_k_curve(totals_PG: npt.ArrayLike) -> dict[int, float]:
    """Return k -> expected total of the best of k samples, averaged over prompts, k = 1..G.

    Unbiased, over all subsets of size k without replacement: with a prompt's totals sorted, the
    i-th smallest is the maximum of C(i - 1, k - 1) of the C(G, k) subsets.

    Raises:
        ValueError: The totals are not a finite, non-empty [P, G].
    """
    totals = np.asarray(totals_PG, np.float64)
    if totals.ndim != 2 or 0 in totals.shape or not np.isfinite(totals).all():
        raise ValueError(f"expected finite totals [P > 0, G > 0], got shape {totals.shape}")
    count = totals.shape[1]
    mean_sorted_G = np.sort(totals, axis=1).mean(axis=0)
    curve = {}
    for k in range(1, count + 1):
        share_G = [math.comb(i - 1, k - 1) / math.comb(count, k) for i in range(1, count + 1)]
        curve[k] = float(mean_sorted_G @ np.array(share_G))
    return curve


def win_rate(before_N: npt.ArrayLike, after_N: npt.ArrayLike) -> float:
    """Return the share of prompts whose value is higher after than before; a tie counts half."""
    before, after = np.asarray(before_N, np.float64), np.asarray(after_N, np.float64)
    if before.shape != after.shape or before.ndim != 1 or not before.size:
        raise ValueError(f"expected equal lengths [N > 0], got {before.shape} and {after.shape}")
    return float((after > before).mean() + 0.5 * (after == before).mean())


def unpaired_bootstrap(
    before_N: npt.ArrayLike,
    after_M: npt.ArrayLike,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Return `mean(after) - mean(before)` with its percentile bootstrap interval.

    For values of different prompts: both lists are resampled, each by itself, so the interval is
    wider than that of `paired_bootstrap` on shared prompts.

    Args:
        before_N: One finite value per prompt.
        after_M: The same of other prompts.
        num_resamples: Bootstrap samples (> 0).
        seed: Seed of the resampling; equal arguments give equal intervals.
        confidence: Share of the bootstrap differences inside the interval, in (0, 1).

    Raises:
        ValueError: There is no prompt, or a value is not finite.
    """
    generator = np.random.default_rng(seed)
    means, resampled = [], []
    for values in (before_N, after_M):
        values_N = np.asarray(values, np.float64)
        if values_N.ndim != 1 or not values_N.size or not np.isfinite(values_N).all():
            raise ValueError(f"expected finite values [N > 0], got shape {values_N.shape}")
        means.append(float(values_N.mean()))
        resampled.append(_resampled_means(values_N, num_resamples, generator))
    return _interval(means[1] - means[0], resampled[1] - resampled[0], confidence)
