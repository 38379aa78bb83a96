"""What a study's answers say: agreement among people, who won, and how strong each group is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from videorl.judging.questions import INVALID, SAME, A, B, outcomes
from videorl.judging.strengths import Said, Strength, strengths_of
from videorl.judging.study import Answer, Study
from videorl.settings.extras import needing

_CODES = {A: 0.0, B: 1.0, SAME: 2.0}


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
    """Krippendorff's alpha (nominal) of A, B and same, which are the study's: the same video,
    whichever side of the screen it was on. None where no pair has two answers, or all answers are
    equal."""
    duels: tuple[Duel, ...]
    strengths: tuple[Strength, ...]
    """Of the largest set of groups that answers connect."""
    missing: tuple[str, ...]
    """What of the strengths could not be said, and why."""


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


def _question(study: Study, name: str, said: Said) -> QuestionResult:
    told = [(answer, outcome) for answer, outcome in said if outcome != INVALID]
    found, missing = strengths_of(study, told)
    return QuestionResult(
        question=name,
        num_answers=len(told),
        num_cannot_tell=len(said) - len(told),
        alpha=agreement(told),
        duels=_duels(study, told),
        strengths=found,
        missing=missing,
    )


def agreement(said: Said) -> float | None:
    """Return Krippendorff's alpha of outcomes: 1 = people agree, 0 = as if by chance.

    None where it does not exist: no pair has two answers, or all answers are the same.
    """
    with needing("videorl judge --report", "judge"):
        from krippendorff import alpha

    pairs = {pair: place for place, pair in enumerate(dict.fromkeys(a.pair for a, _ in said))}
    people = {who: place for place, who in enumerate(dict.fromkeys(a.annotator for a, _ in said))}
    codes_RP = np.full((len(people), len(pairs)), np.nan)
    for answer, outcome in said:
        codes_RP[people[answer.annotator], pairs[answer.pair]] = _CODES[outcome]
    codes_RP = codes_RP[:, np.isfinite(codes_RP).sum(0) > 1]
    if len(np.unique(codes_RP[np.isfinite(codes_RP)])) < 2:
        return None
    return float(alpha(reliability_data=codes_RP, level_of_measurement="nominal"))


def _duels(study: Study, said: Said) -> tuple[Duel, ...]:
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
        lines += [f"- {sentence}" for sentence in question.missing]
        rows = [
            (duel.first, duel.second, str(duel.wins), str(duel.ties), str(duel.losses))
            for duel in question.duels
        ]
        lines += _table(("first", "second", "wins", "ties", "losses"), rows)
        strong = [
            (found.group, *map(_signed, (found.strength, found.low, found.high)))
            for found in question.strengths
        ]
        lines += _table(("group", "strength", "2.5 %", "97.5 %"), strong)
    return "\n".join(lines) + "\n"


def _signed(value: float | None) -> str:
    return "—" if value is None else f"{value:+.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    # A bar in a folder's name would be the end of a cell.
    plain = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    cells = [head, ["-" * len(name) for name in head], *plain]
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    return [
        "",
        *("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells),
    ]
