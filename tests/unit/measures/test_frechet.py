"""The Fréchet distance against scipy, closed forms, and the spread of repeated experiments."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg

from videorl.errors import ConfigError
from videorl.measures.frechet import bootstrap, check_number, extrapolate, frechet_distance

Matrix = npt.NDArray[np.float64]


def drawn(count: int, size: int, seed: int, scale: float = 1.0) -> Matrix:
    return scale * np.random.default_rng(seed).standard_normal((count, size))


def exactly(mean: npt.ArrayLike, covariance: npt.ArrayLike) -> Matrix:
    """Samples whose mean and unbiased covariance are those."""
    size = len(np.asarray(mean))
    plain = drawn(40, size, 0)
    plain -= plain.mean(axis=0)
    white = plain @ np.linalg.inv(np.linalg.cholesky(np.cov(plain, rowvar=False)).T)
    return white @ np.linalg.cholesky(np.asarray(covariance)).T + np.asarray(mean)


@pytest.mark.parametrize(("count", "other"), [(60, 45), (9, 60)], ids=["full rank", "too few"])
def test_equals_the_published_formula_with_scipy(count: int, other: int) -> None:
    mix = drawn(12, 12, 1)
    first, second = drawn(count, 12, 2) @ mix, drawn(other, 12, 3) @ mix.T + 0.5
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    difference = first.mean(axis=0) - second.mean(axis=0)
    root = scipy.linalg.sqrtm(a @ b)
    expected = difference @ difference + np.trace(a + b - 2 * np.real(root))
    # scipy's root of a matrix without full rank is exact to half of the digits only.
    near = pytest.approx(expected, rel=1e-9 if count > 12 else 1e-4)
    assert frechet_distance(first, second) == near


def test_closed_forms() -> None:
    equal = exactly([1, 2, 3], np.diag([1.0, 4.0, 9.0]))
    assert frechet_distance(equal, equal) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(equal, equal + np.array([1, -2, 2])) == pytest.approx(9.0)
    # Of diagonal covariances: the sum of (σ₁ − σ₂)²; here (1 − 2)² + (2 − 2)² + (3 − 5)².
    other = exactly([1, 2, 3], np.diag([4.0, 4.0, 25.0]))
    assert frechet_distance(equal, other) == pytest.approx(5.0)
    assert frechet_distance(equal, other) == pytest.approx(frechet_distance(other, equal))


def test_the_interval_is_as_wide_as_repeated_experiments() -> None:
    pairs = [(drawn(150, 4, 2 * n), drawn(150, 4, 2 * n + 1) + 0.5) for n in range(200)]
    spread = np.std([frechet_distance(a, b) for a, b in pairs])
    found = bootstrap(*pairs[0], num_resamples=400)
    assert found.low < found.mean < found.high
    assert found == bootstrap(*pairs[0], num_resamples=400)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(spread, rel=0.25)


def test_infinitely_many_samples() -> None:
    first, second = drawn(800, 24, 0), drawn(600, 24, 1)
    biased = frechet_distance(first, second)
    line = extrapolate(first, second)
    assert line is not None
    assert biased > 0.3  # of one distribution, whose distance is 0
    assert abs(line.at_infinity) < 0.1 * biased
    assert line.at_infinity + line.slope == pytest.approx(biased, rel=0.1)
    assert line.shares[0] == 1 and line.shares[-1] == pytest.approx(0.25)
    assert extrapolate(first[:30], second) is None


def test_what_has_no_distance() -> None:
    with pytest.raises(ValueError, match="N >= 2"):
        frechet_distance(drawn(1, 3, 0), drawn(5, 3, 1))
    with pytest.raises(ValueError, match="one size"):
        frechet_distance(drawn(5, 4, 0), drawn(5, 3, 1))
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(drawn(5, 3, 0) * np.nan, drawn(5, 3, 1))
    check_number("a", 769, 768)
    with pytest.raises(ConfigError, match=r"a: 768 clips .* from 769 clips on.*--few-clips"):
        check_number("a", 768, 768)
