"""How many prompts are needed to see a difference, and which difference some prompts can show."""

from __future__ import annotations

import math
from statistics import NormalDist

FEWEST = 6
"""Below so many prompts the test by flipped signs finds nothing: p is 2 / 2^N at least."""
_ROUNDING = 1e-12
"""Of a mean of shares, whose sum in floating point need not be the exact one."""


def prompts_needed(
    difference: float, deviation: float, *, power: float = 0.8, confidence: float = 0.95
) -> int:
    """Return how many prompts show a mean difference: n = ((z + z_power) s / d)².

    With z and z_power, the normal quantiles of (1 + confidence) / 2 and of power.
    Of a two-sided test of paired differences, one per prompt, by the normal approximation
    (Lachin 1981, equation 1), which asks for some two prompts fewer than Student's t.

    Args:
        difference: The true mean difference that should be seen (not 0).
        deviation: Standard deviation of the differences of prompts (>= 0).
        power: Chance to see it, in (0, 1).
        confidence: 1 less the chance to see a difference where there is none, in (0, 1).

    Raises:
        ValueError: A number is out of its range.
    """
    if not difference or not math.isfinite(difference) or not 0 <= deviation < math.inf:
        raise ValueError(f"expected a difference and a deviation, got {difference}, {deviation}")
    ratio = _quantiles(power, confidence) * deviation / abs(difference)
    return max(math.ceil(ratio**2), 2)


def prompts_needed_if_any(difference: float, deviation: float) -> int | None:
    """Return `prompts_needed`, `FEWEST` at least; None for a difference of 0 but for rounding."""
    if abs(difference) <= max(_ROUNDING, _ROUNDING * deviation):
        return None
    return max(prompts_needed(difference, deviation), FEWEST)


def difference_seen(
    num_prompts: int, deviation: float, *, power: float = 0.8, confidence: float = 0.95
) -> float:
    """Return the smallest mean difference that `num_prompts` show; the inverse of the above."""
    if num_prompts < 1 or not 0 <= deviation < math.inf:
        raise ValueError(f"expected prompts and a deviation, got {num_prompts}, {deviation}")
    return _quantiles(power, confidence) * deviation / math.sqrt(num_prompts)


def prompts_needed_for_win_rate(
    win_rate: float, *, power: float = 0.8, confidence: float = 0.95
) -> int:
    """Return how many prompts, one pair each and no ties, tell a win rate from one half.

    n = ((z / 2 + z_power √(p (1 − p))) / (p − 1/2))², of the test of one proportion by the
    normal approximation (Fleiss, Statistical Methods for Rates and Proportions, section 2.4);
    `FEWEST` at least.

    Raises:
        ValueError: The win rate is one half, or no share.
    """
    if not 0 <= win_rate <= 1 or win_rate == 0.5:
        raise ValueError(f"expected a win rate in [0, 1] other than one half, got {win_rate}")
    _check(power, confidence)
    inside = NormalDist().inv_cdf(0.5 + confidence / 2.0) / 2.0
    spread = NormalDist().inv_cdf(power) * math.sqrt(win_rate * (1.0 - win_rate))
    return max(math.ceil(((inside + spread) / (win_rate - 0.5)) ** 2), FEWEST)


def _quantiles(power: float, confidence: float) -> float:
    _check(power, confidence)
    return NormalDist().inv_cdf(0.5 + confidence / 2.0) + NormalDist().inv_cdf(power)


def _check(power: float, confidence: float) -> None:
    if not (0 < power < 1 and 0 < confidence < 1):
        raise ValueError(f"expected shares in (0, 1), got power {power}, confidence {confidence}")


def win_rate_seen(num_prompts: int, *, power: float = 0.8, confidence: float = 0.95) -> float:
    """Return the smallest win rate above one half that `num_prompts` tell from it; at most 1.

    The inverse of `prompts_needed_for_win_rate`, to half a percent.
    """
    for step in range(101, 200):
        rate = step / 200.0
        if prompts_needed_for_win_rate(rate, power=power, confidence=confidence) <= num_prompts:
            return rate
    return 1.0
