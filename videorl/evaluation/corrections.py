"""What chance alone would do: p-values, corrected for their number, and Student's intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt

from videorl.evaluation.statistics import Interval

_EXACT = 12
"""Up to so many differences, all 2^N signs are tried."""
_ROUNDING = 1e-12
_T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5 % quantile of Student's t with 1, 2, … 30 degrees of freedom."""


def flipped_signs(differences_N: npt.ArrayLike, *, num_draws: int = 10_000, seed: int = 0) -> float:
    """Return the two-sided p-value of a mean of 0, by the randomisation test of paired differences.

    If nothing differs, each prompt's difference is as likely with the other sign (Fisher 1935,
    section 21). The p-value is the share of sign patterns whose mean is as far from 0: of all for
    few prompts, else of random ones, with the patterns as found counted among them (Phipson and
    Smyth 2010, equation 2), so that it is never 0.

    Args:
        differences_N: A finite difference per prompt, N > 0.
        num_draws: Random patterns for N > 12.
        seed: Equal arguments give equal values.

    Raises:
        ValueError: There is no difference, or one is not finite.
    """
    values = np.asarray(differences_N, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"expected finite differences [N > 0], got shape {values.shape}")
    far = abs(values.sum()) - _ROUNDING * np.abs(values).sum()
    if values.size <= _EXACT:
        numbers = np.arange(2**values.size)[:, None]
        signs = 1.0 - 2.0 * ((numbers >> np.arange(values.size)) & 1)
        return float((np.abs(signs @ values) >= far).mean())
    generator, count = np.random.default_rng(seed), 0
    for start in range(0, num_draws, 1000):  # in blocks, to keep the memory small
        size = (min(1000, num_draws - start), values.size)
        signs = generator.integers(0, 2, size) * 2.0 - 1.0
        count += int((np.abs(signs @ values) >= far).sum())
    return (count + 1) / (num_draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected after Holm (1979): the chance of any false finding stays below.

    The k-th smallest of m becomes the largest of (m − j + 1) p_j for j ≤ k, and at most 1. It
    assumes nothing of how the comparisons depend on each other.

    Raises:
        ValueError: A value is outside of [0, 1].
    """
    values = np.asarray(p_values, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("expected p-values in [0, 1]")
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    found = np.empty_like(values)
    found[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1.0)
    return found.tolist()


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


def student_p(values_N: npt.ArrayLike) -> float:
    """Return the two-sided p-value of a mean of 0 by Student's t, with N − 1 degrees of freedom.

    The tail is integrated numerically, to about 1e-6 of itself.

    Args:
        values_N: Finite values, N >= 2, such as one difference per training seed.

    Raises:
        ValueError: There are fewer, or one is not finite.
    """
    values = np.asarray(values_N, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"expected finite values [N >= 2], got shape {values.shape}")
    degrees, error = len(values) - 1, float(values.std(ddof=1)) / math.sqrt(len(values))
    if not error:
        return 1.0 if not values.mean() else 0.0
    t = abs(float(values.mean())) / error
    # With x = √n tan a the density becomes cos(a)^(n − 1), up to its factor.
    count = 20_000
    start = math.atan(t / math.sqrt(degrees))
    width = (math.pi / 2.0 - start) / count
    angles = start + width * (np.arange(count) + 0.5)
    factor = math.exp(math.lgamma((degrees + 1) / 2.0) - math.lgamma(degrees / 2.0))
    tail = float((np.cos(angles) ** (degrees - 1)).sum()) * width * factor / math.sqrt(math.pi)
    return min(2.0 * tail, 1.0)
