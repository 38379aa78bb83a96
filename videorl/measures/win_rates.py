"""How often a reward model prefers the clips of a folder to those of another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from videorl.data.score_reading import ScoredClips
from videorl.errors import ConfigError
from videorl.evaluation.corrections import flipped_signs
from videorl.evaluation.statistics import Interval, paired_bootstrap
from videorl.measures.folders import Folder, plain_name
from videorl.types import Score

TOTAL = "total"


@dataclass(frozen=True, slots=True)
class WinRate:
    """A folder against the first; shares are means over prompts, which weigh the same."""

    label: str
    model: str
    dimension: str
    wins: float
    ties: float
    losses: float
    rate: Interval
    """Wins and half of the ties, in [0, 1], prompts resampled."""
    deviation: float
    """Standard deviation of the prompts' rates, for the power of a comparison."""
    num_prompts: int
    num_pairs: int
    num_skipped: int
    """Clips of both folders that have no score, or no partner."""
    p: float | None = None
    """Of a rate of one half, by flipped signs; None for a single prompt."""
    p_holm: float | None = None
    """The same, corrected for all comparisons of the report."""


def win_rates(
    first: tuple[Folder, ScoredClips], other: tuple[Folder, ScoredClips], *, tie: float = 0.0
) -> list[WinRate]:
    """Compare clips of the same prompt under a reward model, per dimension and in total.

    Within a prompt, clips of the same file name are a pair; where no name is shared (runs name
    their clips by themselves), each clip is compared with each. VideoReward's tables (arXiv
    2501.13918) give win rates of its model with the tie at 0, and wins, ties and losses of people.

    Args:
        first: A folder with its scores.
        other: The folder whose wins are counted.
        tie: Scores of a pair that differ by no more are a tie (>= 0).

    Raises:
        ConfigError: The scores are of two models, `tie` is negative, or there is no pair.
    """
    (mine, my_scores), (theirs, their_scores) = first, other
    if my_scores.model != their_scores.model:
        raise ConfigError(
            f"scores of {mine.label} are of {my_scores.model}, those of {theirs.label} of "
            f"{their_scores.model}; they cannot be compared"
        )
    if not tie >= 0:
        raise ConfigError(f"--tie must be 0 or more, got {tie}")
    a, b = _by_prompt(mine, my_scores), _by_prompt(theirs, their_scores)
    pairs = {unit: _pairs(a[unit], b[unit]) for unit in a if unit in b}
    pairs = {unit: found for unit, found in pairs.items() if found}
    if not pairs:
        raise ConfigError(
            f"no clip of {theirs.label} and {mine.label} of one prompt has a score of "
            f"{my_scores.label}; were these folders scored with `videorl score`?"
        )
    used = {id(score) for found in pairs.values() for pair in found for score in pair}
    num_skipped = len(mine.keys) + len(theirs.keys) - len(used)
    return [
        _rate(theirs.label, my_scores.label, name, pairs, tie, num_skipped)
        for name in _dimensions(pairs)
    ]


def _by_prompt(folder: Folder, scored: ScoredClips) -> dict[str, dict[str, Score]]:
    """Return unit -> name of the clip -> score, of the clips that have one."""
    found: dict[str, dict[str, Score]] = defaultdict(dict)
    for key in folder.keys:
        if isinstance(score := scored.of(key), Score):
            found[folder.unit(key)][plain_name(key[0])] = score
    return found


def _pairs(a: Mapping[str, Score], b: Mapping[str, Score]) -> list[tuple[Score, Score]]:
    if shared := [name for name in a if name in b]:
        return [(a[name], b[name]) for name in shared]
    return [(mine, theirs) for mine in a.values() for theirs in b.values()]


def _dimensions(pairs: Mapping[str, Sequence[tuple[Score, Score]]]) -> list[str]:
    """Return the dimensions that every score has, and the total."""
    scores = [score for found in pairs.values() for pair in found for score in pair]
    shared = [n for n in scores[0].dimensions if all(n in score.dimensions for score in scores)]
    return [*shared, TOTAL]


def _rate(
    label: str,
    model: str,
    name: str,
    pairs: Mapping[str, Sequence[tuple[Score, Score]]],
    tie: float,
    num_skipped: int,
) -> WinRate:
    def value(score: Score) -> float:
        return score.total if name == TOTAL else score.dimensions[name]

    shares: list[tuple[float, float]] = []
    for unit, found in pairs.items():
        margins = np.array([value(theirs) - value(mine) for mine, theirs in found])
        if not np.isfinite(margins).all():
            raise ConfigError(f"{model}: {name} of a clip of {unit[:60]!r} is NaN or infinite")
        shares.append((float((margins > tie).mean()), float((margins < -tie).mean())))
    wins, losses = np.array(shares).T
    rates = wins + (1.0 - wins - losses) / 2.0
    return WinRate(
        label,
        model,
        name,
        float(wins.mean()),
        float((1.0 - wins - losses).mean()),
        float(losses.mean()),
        paired_bootstrap(np.zeros_like(rates), rates),
        float(rates.std(ddof=1)) if len(rates) > 1 else 0.0,
        len(rates),
        sum(map(len, pairs.values())),
        num_skipped,
        flipped_signs(rates - 0.5) if len(rates) > 1 else None,
    )
