from itertools import combinations

import numpy as np
import pytest

from videorl.evaluation.statistics import best_of_k_curve, paired_bootstrap, win_rate


def test_interval_is_paired_over_prompts() -> None:
    # Prompts differ by 100, the change is exactly 1 on each: no uncertainty is left.
    interval = paired_bootstrap([0.0, 100.0, 200.0], [1.0, 101.0, 201.0], num_resamples=100)
    assert (interval.mean, interval.low, interval.high) == (1.0, 1.0, 1.0)


def test_interval_has_the_width_that_theory_says() -> None:
    rng = np.random.default_rng(1)
    before = rng.normal(0.0, 5.0, 400)
    difference = rng.normal(0.3, 1.0, 400)
    interval = paired_bootstrap(before, before + difference)
    half = 1.96 * difference.std() / np.sqrt(400)
    assert interval.mean == pytest.approx(difference.mean())
    assert interval.low == pytest.approx(difference.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(difference.mean() + half, abs=0.1 * half)
    assert interval == paired_bootstrap(before, before + difference)
    narrow = paired_bootstrap(before, before + difference, confidence=0.5)
    assert narrow.high - narrow.low == pytest.approx(2 * half * 0.6745 / 1.96, rel=0.1)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        found = paired_bootstrap(np.zeros(64), rng.normal(0.0, 1.0, 64), num_resamples=500)
        covered += found.low <= 0.0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.parametrize(
    ("before", "after"), [([1.0], [1.0, 2.0]), ([], []), ([1.0], [np.nan]), ([np.inf], [1.0])]
)
def test_values_that_cannot_be_paired_are_refused(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        paired_bootstrap(before, after)


def test_best_of_k_by_hand() -> None:
    # Pairs of (3, 1, 2): max(3,1) = 3, max(3,2) = 3, max(1,2) = 2, mean 8/3.
    assert best_of_k_curve([[3.0, 1.0, 2.0]]) == pytest.approx({1: 2.0, 2: 8 / 3, 3: 3.0})


def test_best_of_k_is_the_mean_over_all_subsets() -> None:
    totals = np.random.default_rng(0).normal(size=(5, 8))
    totals[0, :4] = 1.0  # ties
    curve = best_of_k_curve(totals)
    assert list(curve) == list(range(1, 9))
    for k in curve:
        subsets = [
            totals[:, list(subset)].max(axis=1).mean() for subset in combinations(range(8), k)
        ]
        assert curve[k] == pytest.approx(np.mean(subsets))


@pytest.mark.parametrize("totals", [[[]], [1.0, 2.0], [[1.0, np.nan]]])
def test_best_of_k_refuses_what_is_not_a_table(totals: list[float]) -> None:
    with pytest.raises(ValueError, match="expected finite totals"):
        best_of_k_curve(totals)


def test_win_rate_counts_ties_half() -> None:
    assert win_rate([0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 0.0, 2.0]) == 0.625
