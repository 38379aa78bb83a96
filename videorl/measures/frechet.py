"""The Fréchet distance of two sets of features: exact, with its spread, and without its bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from videorl.errors import ConfigError
from videorl.evaluation.statistics import Interval

Matrix = npt.NDArray[np.float64]
_NUM_SIZES = 8
"""Sizes of subsets through which the line to infinitely many samples goes."""
_DRAWS = 4
"""Subsets of each size, whose distances are averaged."""
_SMALLEST = 0.25
"""Share of the samples in the smallest subsets."""


@dataclass(frozen=True, slots=True)
class Extrapolated:
    """A line through distances of subsets: distance = `at_infinity` + `slope` / share."""

    at_infinity: float
    slope: float
    """What the finite numbers of samples add to the distance of all of them."""
    shares: Sequence[float]
    distances: Sequence[float]


def frechet_distance(first_ND: npt.ArrayLike, second_MD: npt.ArrayLike) -> float:
    """Return |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½) of the Gaussians of two sets of features.

    Dowson and Landau 1982; FVD is this on features of a video network (arXiv 1812.01717).
    Covariances are unbiased (divided by N − 1). With Σ = AᵀA, the eigenvalues of Σ₁Σ₂ are the
    squared singular values of A₁A₂ᵀ: so no square root of a matrix that may have no full rank is
    taken, and nothing is added to a diagonal.

    Args:
        first_ND: Finite features, N >= 2 samples.
        second_MD: The same of the other set, M >= 2.

    Raises:
        ValueError: The shapes do not fit, or a value is not finite.
    """
    first, second = _features(first_ND), _features(second_MD)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"expected features of one size, got {first.shape} and {second.shape}")
    mean = first.mean(axis=0) - second.mean(axis=0)
    a, b = _root(first), _root(second)
    trace = float(np.square(a).sum() + np.square(b).sum())
    shared = float(np.linalg.svd(a @ b.T, compute_uv=False).sum())
    return max(float(mean @ mean) + trace - 2.0 * shared, 0.0)


def _features(values: npt.ArrayLike) -> Matrix:
    found = np.asarray(values, np.float64)
    if found.ndim != 2 or found.shape[0] < 2 or not found.shape[1]:
        raise ValueError(f"expected features [N >= 2, D > 0], got {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError("expected finite features, got NaN or infinity")
    return found


def _root(features_ND: Matrix) -> Matrix:
    """Return A [min(N, D), D] with AᵀA = the covariance."""
    centred = (features_ND - features_ND.mean(axis=0)) / np.sqrt(len(features_ND) - 1)
    return (
        np.asarray(np.linalg.qr(centred, mode="r")) if len(centred) > centred.shape[1] else centred
    )


def check_number(name: str, num_samples: int, num_features: int) -> None:
    """Refuse fewer samples than a covariance of full rank needs.

    Raises:
        ConfigError: There are too few.
    """
    if num_samples <= num_features:
        raise ConfigError(
            f"{name}: {num_samples} clips for FVD on {num_features} features; their covariance has "
            f"full rank only from {num_features + 1} clips on, and below that the distance says "
            "more about the number of clips than about the videos. Give more clips, or "
            "--few-clips to go on nevertheless"
        )


def bootstrap(
    first_ND: npt.ArrayLike,
    second_MD: npt.ArrayLike,
    *,
    num_resamples: int = 100,
    seed: int = 0,
    confidence: float = 0.95,
    clusters: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Interval:
    """Return the distance with the spread that other samples of the same numbers would give it.

    Both sets are resampled. A resample repeats samples, which makes its distance larger on average:
    so the percentiles are taken around the mean of the resamples and moved to the distance itself.
    The interval is of the distance at these numbers of samples; their bias is not in it (see
    `extrapolate`).

    Args:
        first_ND: As for `frechet_distance`.
        second_MD: The same.
        num_resamples: Bootstrap samples (> 0).
        seed: Equal arguments give equal intervals.
        confidence: Share of the resamples inside the interval, in (0, 1).
        clusters: The prompt of each sample of both sets: prompts are drawn with all of their
            samples, which are no independent evidence. None = samples are drawn.
    """
    first, second = _features(first_ND), _features(second_MD)
    distance = frechet_distance(first, second)
    generator = np.random.default_rng(seed)
    rows = [
        _rows(values, names)
        for values, names in zip((first, second), clusters or (None, None), strict=True)
    ]
    found = np.array(
        [
            frechet_distance(_drawn(first, rows[0], generator), _drawn(second, rows[1], generator))
            for _ in range(num_resamples)
        ]
    )
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(found - found.mean(), [tail, 1.0 - tail])
    return Interval(distance, max(distance + float(low), 0.0), distance + float(high))


def _rows(values: Matrix, clusters: Sequence[str] | None) -> list[npt.NDArray[np.intp]]:
    """Return the rows of each cluster; without clusters, each row alone."""
    if clusters is None:
        return list(np.arange(len(values))[:, None])
    if len(clusters) != len(values):
        raise ValueError(f"expected a cluster per sample, got {len(clusters)} of {len(values)}")
    _, place = np.unique(np.asarray(clusters), return_inverse=True)
    return [np.flatnonzero(place == number) for number in range(place.max() + 1)]


def _drawn(
    features_ND: Matrix, rows: Sequence[npt.NDArray[np.intp]], generator: np.random.Generator
) -> Matrix:
    """Return as many clusters as there are, drawn with replacement; at least two rows."""
    while True:
        chosen = np.concatenate([rows[n] for n in generator.integers(0, len(rows), len(rows))])
        if len(chosen) > 1:
            return features_ND[chosen]


def extrapolate(
    first_ND: npt.ArrayLike, second_MD: npt.ArrayLike, *, seed: int = 0
) -> Extrapolated | None:
    """Return the distance of infinitely many samples, after Chong and Forsyth (arXiv 1911.07023).

    The bias of the distance is linear in 1/N to first order. Theirs varies the number of generated
    samples against fixed statistics of the reference; here both sets are thinned by the same share,
    since a reference of a few thousand clips is biased too. At infinity it may be a little below 0.

    Returns:
        None where even three quarters of the smaller set are too few for its features.
    """
    first, second = _features(first_ND), _features(second_MD)
    smaller, size = min(len(first), len(second)), first.shape[1]
    smallest = max(_SMALLEST, (size + 1) / smaller)
    if smallest > 0.75:
        return None
    shares = 1.0 / np.linspace(1.0, 1.0 / smallest, _NUM_SIZES)
    generator = np.random.default_rng(seed)
    distances = [_of_share(first, second, float(share), generator) for share in shares]
    slope, at_infinity = np.polyfit(1.0 / shares, distances, 1)
    return Extrapolated(float(at_infinity), float(slope), tuple(map(float, shares)), distances)


def _of_share(first: Matrix, second: Matrix, share: float, generator: np.random.Generator) -> float:
    """Return the mean distance of random subsets of both sets."""
    if share >= 1.0:
        return frechet_distance(first, second)
    found = [
        frechet_distance(*(_subset(values, share, generator) for values in (first, second)))
        for _ in range(_DRAWS)
    ]
    return float(np.mean(found))


def _subset(features_ND: Matrix, share: float, generator: np.random.Generator) -> Matrix:
    count = max(round(share * len(features_ND)), 2)
    return features_ND[generator.choice(len(features_ND), count, replace=False)]
