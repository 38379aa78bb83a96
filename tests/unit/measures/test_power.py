"""Closed forms of power against simulated experiments."""

from __future__ import annotations

import math

import numpy as np
import pytest

from videorl.evaluation.corrections import flipped_signs
from videorl.measures.power import (
    FEWEST,
    difference_seen,
    prompts_needed,
    prompts_needed_for_win_rate,
    prompts_needed_if_any,
    win_rate_seen,
)


def test_as_textbooks_have_it() -> None:
    # (1.959964 + 0.841621)² = 7.848879; half a deviation: 31.4, a tenth: 784.9.
    assert prompts_needed(0.5, 1.0) == 32
    assert prompts_needed(-0.1, 1.0) == 785
    assert difference_seen(785, 1.0) == pytest.approx(0.1, rel=1e-3)
    # ((1.959964 / 2 + 0.841621 √0.24) / 0.1)² = (1.392290 / 0.1)² = 193.85.
    assert prompts_needed_for_win_rate(0.6) == prompts_needed_for_win_rate(0.4) == 194
    assert win_rate_seen(194) == 0.6
    assert win_rate_seen(3) == 1.0


def test_simulated_experiments_see_a_difference_that_often() -> None:
    generator = np.random.default_rng(0)
    count = prompts_needed(0.2, 1.0)
    samples = 0.2 + generator.standard_normal((4000, count))
    seen = np.abs(samples.mean(axis=1)) > 1.96 * samples.std(axis=1, ddof=1) / np.sqrt(count)
    assert seen.mean() == pytest.approx(0.8, abs=0.03)


def test_simulated_win_rates_are_seen_that_often() -> None:
    generator = np.random.default_rng(0)
    count = prompts_needed_for_win_rate(0.6, power=0.9)
    wins = generator.binomial(count, 0.6, 4000) / count
    assert (np.abs(wins - 0.5) > 1.96 * 0.5 / np.sqrt(count)).mean() == pytest.approx(0.9, abs=0.03)


def test_rounding_is_no_difference() -> None:
    rate = math.nextafter(0.5, 1.0)
    assert prompts_needed_if_any(rate - 0.5, 0.3) is None
    assert prompts_needed_if_any(1e-300, 0.3) is None
    assert prompts_needed_if_any(-0.1, 1.0) == prompts_needed(0.1, 1.0)


def test_fewer_prompts_than_the_test_of_a_report_can_judge() -> None:
    """If every prompt agrees, flipped signs give 2 / 2^N: five prompts are never enough."""
    assert flipped_signs([0.5] * (FEWEST - 1)) > 0.05 > flipped_signs([0.5] * FEWEST)
    assert win_rate_seen(FEWEST - 1) == 1.0 and win_rate_seen(FEWEST) < 1.0
    assert prompts_needed_for_win_rate(1.0) == prompts_needed_if_any(9.0, 1.0) == FEWEST


def test_what_has_no_answer() -> None:
    with pytest.raises(ValueError, match="difference"):
        prompts_needed(0.0, 1.0)
    with pytest.raises(ValueError, match="one half"):
        prompts_needed_for_win_rate(0.5)
    with pytest.raises(ValueError, match="power"):
        prompts_needed(1.0, 1.0, power=1.0)
