"""What a study's answers say: agreement among people, who won, and how strong each group is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from videorl.errors import ConfigError
from videorl.evaluation.statistics import Interval
from videorl.judging.questions import INVALID, SAME, A, B, outcomes
from videorl.judging.study import Answer, Study

_RESAMPLES = 1000
_PRIOR = 0.5
"""Wins and losses that every two groups that met are given, so that a strength is finite even if
one of them won every time."""
_CODES = {A: 0.0, B: 1.0, SAME: 2.0}


@dataclass(frozen=True, slots=True)
class Strength:
    """Of a group, by the model of Bradley and Terry; strengths of a question add up to 0.

    exp(difference of two strengths) is the odds that people prefer the first.
    """

    group: str
    strength: Interval
    """With its 95 % bootstrap interval; pairs are drawn again, each with all of its answers."""


@dataclass(frozen=True, slots=True)
class Duel:
    """How often the first of two groups won against the second."""

    first: str
    second: str
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """What people said on one dimension."""

    question: str
    num_answers: int
    """Without those who could not tell."""
    num_cannot_tell: int
    alpha: float | None
    """Krippendorff's alpha (nominal) of A, B and same; None where no pair has two answers, or all
    answers are equal."""
    duels: tuple[Duel, ...]
    strengths: tuple[Strength, ...]


@dataclass(frozen=True, slots=True)
class Results:
    """Of a study."""

    study: str
    mode: str
    num_pairs: int
    answers_per_pair: int
    num_answers: int
    """Complete answers on pairs."""
    num_pairs_done: int
    """Pairs that have all their answers."""
    by_annotator: Mapping[str, int]
    questions: tuple[QuestionResult, ...]


def results_of(study: Study, answers: Sequence[Answer]) -> Results:
    """Sum up complete answers.

    Raises:
        ConfigError: A package that this needs is not installed.
    """
    counts = Counter(answer.pair for answer in answers)
    said = [(answer, outcomes(study.mode, answer.choices)) for answer in answers]
    names = list(dict.fromkeys(name for _, found in said for name in found))
    return Results(
        study=study.id,
        mode=study.mode,
        num_pairs=len(study.pairs),
        answers_per_pair=study.answers_per_pair,
        num_answers=len(answers),
        num_pairs_done=sum(count >= study.answers_per_pair for count in counts.values()),
        by_annotator=dict(sorted(Counter(answer.annotator for answer in answers).items())),
        questions=tuple(
            _question(study, name, [(answer, found[name]) for answer, found in said])
            for name in names
        ),
    )


_Said = Sequence[tuple[Answer, str]]


def _question(study: Study, name: str, said: _Said) -> QuestionResult:
    told = [(answer, outcome) for answer, outcome in said if outcome != INVALID]
    groups = sorted({side.group for pair in study.pairs for side in (pair.a, pair.b)})
    wins_PGG = _wins(study, groups, told)
    return QuestionResult(
        question=name,
        num_answers=len(told),
        num_cannot_tell=len(said) - len(told),
        alpha=agreement(told),
        duels=_duels(study, told),
        strengths=strengths(groups, wins_PGG) if len(groups) > 1 and told else (),
    )


def agreement(said: _Said) -> float | None:
    """Return Krippendorff's alpha of outcomes: 1 = people agree, 0 = as if by chance.

    None where it does not exist: no pair has two answers, or all answers are the same.
    """
    try:
        from krippendorff import alpha
    except ModuleNotFoundError as error:
        raise _lacking(error) from error

    pairs = {pair: place for place, pair in enumerate(dict.fromkeys(a.pair for a, _ in said))}
    people = {who: place for place, who in enumerate(dict.fromkeys(a.annotator for a, _ in said))}
    codes_RP = np.full((len(people), len(pairs)), np.nan)
    for answer, outcome in said:
        codes_RP[people[answer.annotator], pairs[answer.pair]] = _CODES[outcome]
    codes_RP = codes_RP[:, np.isfinite(codes_RP).sum(0) > 1]
    if len(np.unique(codes_RP[np.isfinite(codes_RP)])) < 2:
        return None
    return float(alpha(reliability_data=codes_RP, level_of_measurement="nominal"))


def _wins(study: Study, groups: Sequence[str], said: _Said) -> npt.NDArray[np.float64]:
    """Return wins [P, G, G] by pair: of the row's group over the column's; a tie is half a win."""
    place = {group: number for number, group in enumerate(groups)}
    by_pair: dict[str, npt.NDArray[np.float64]] = {}
    for answer, outcome in said:
        pair = study.by_id[answer.pair]
        a, b = place[pair.a.group], place[pair.b.group]
        if a == b:
            continue
        wins_GG = by_pair.setdefault(pair.id, np.zeros((len(groups), len(groups))))
        share = 0.5 if outcome == SAME else float(outcome == A)
        wins_GG[a, b] += share
        wins_GG[b, a] += 1.0 - share
    return np.array(list(by_pair.values())).reshape(-1, len(groups), len(groups))


def strengths(
    groups: Sequence[str], wins_PGG: npt.NDArray[np.float64], seed: int = 0
) -> tuple[Strength, ...]:
    """Return the strength of each group, the strongest first; those that met nobody have none.

    Args:
        groups: Their names.
        wins_PGG: Wins by pair, as `_wins` counts them.
        seed: Of the bootstrap.
    """
    try:
        from choix import ilsr_pairwise_dense
    except ModuleNotFoundError as error:
        raise _lacking(error) from error

    total_GG = wins_PGG.sum(0)
    met_GG = (total_GG + total_GG.T) > 0
    kept = _connected(met_GG)
    if len(kept) < 2:
        return ()
    met_GG = met_GG[np.ix_(kept, kept)]

    def fit(wins_GG: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return ilsr_pairwise_dense(wins_GG[np.ix_(kept, kept)] + _PRIOR * met_GG)

    rng = np.random.default_rng(seed)
    drawn_SP = rng.integers(0, len(wins_PGG), (_RESAMPLES, len(wins_PGG)))
    fits_SG = np.array([fit(wins_PGG[drawn_P].sum(0)) for drawn_P in drawn_SP])
    low_G, high_G = np.quantile(fits_SG, [0.025, 0.975], axis=0)
    found = [
        Strength(groups[group], Interval(float(mean), float(low), float(high)))
        for group, mean, low, high in zip(kept, fit(total_GG), low_G, high_G, strict=True)
    ]
    return tuple(sorted(found, key=lambda group: -group.strength.mean))


def _connected(met_GG: npt.NDArray[np.bool_]) -> list[int]:
    """Return the largest set of groups that can be compared, by others if not directly."""
    best: set[int] = set()
    for start in range(len(met_GG)):
        reached, new = {start}, {start}
        while new:
            new = {int(n) for group in new for n in np.flatnonzero(met_GG[group])} - reached
            reached |= new
        if len(reached) > len(best):
            best = reached
    return sorted(best)


def _duels(study: Study, said: _Said) -> tuple[Duel, ...]:
    found: Counter[tuple[str, str, str]] = Counter()
    for answer, outcome in said:
        pair = study.by_id[answer.pair]
        first, second = sorted((pair.a.group, pair.b.group))
        if first != second and outcome != SAME and first == pair.b.group:
            outcome = B if outcome == A else A
        found[first, second, outcome] += 1
    pairs = sorted({key[:2] for key in found if key[0] != key[1]})
    return tuple(
        Duel(first, second, *(found[first, second, outcome] for outcome in (A, SAME, B)))
        for first, second in pairs
    )


def _lacking(error: ModuleNotFoundError) -> ConfigError:
    return ConfigError(
        f"results need {error.name}, which is not installed: pip install 'videorl[judge]'"
    )


def text_of(results: Results) -> str:
    """Return results as Markdown, which also reads well as it is."""
    people = ", ".join(f"{name} {count}" for name, count in results.by_annotator.items())
    lines = [
        f"# Study {results.study}",
        "",
        f"{results.num_answers} answers ({people or 'none yet'}) on {results.num_pairs} pairs, of "
        f"which {results.num_pairs_done} have all {results.answers_per_pair}.",
    ]
    for question in results.questions:
        alpha = "does not exist" if question.alpha is None else f"{question.alpha:.3f}"
        lines += [
            "",
            f"## {question.question}",
            "",
            f"{question.num_answers} answers, {question.num_cannot_tell} could not tell; "
            f"Krippendorff's alpha {alpha}.",
        ]
        rows = [
            (duel.first, duel.second, str(duel.wins), str(duel.ties), str(duel.losses))
            for duel in question.duels
        ]
        lines += _table(("first", "second", "wins", "ties", "losses"), rows)
        strong = [
            (found.group, *(f"{value:+.3f}" for value in _ends(found.strength)))
            for found in question.strengths
        ]
        lines += _table(("group", "strength", "2.5 %", "97.5 %"), strong)
    return "\n".join(lines) + "\n"


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    cells = [head, ["-" * len(name) for name in head], *rows]
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    return [
        "",
        *("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells),
    ]
