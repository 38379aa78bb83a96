"""How well each measure agrees with people: the answers of judging pages, joined in by video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from videorl.errors import ConfigError
from videorl.evaluation.agreement import PairwiseAccuracy, pairwise_accuracy
from videorl.judging.answers import complete_answers
from videorl.judging.questions import SAME, A, B, outcomes
from videorl.judging.study import read_study

_SIGNS = {A: 1, B: -1, SAME: 0}


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of a measure with people, on a question."""

    measure: str
    question: str
    accuracy: PairwiseAccuracy


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the people of a study said of two videos."""

    question: str
    a: Path
    b: Path
    label: int
    """1 = most preferred A, −1 = B, 0 = neither."""


def read_verdicts(studies: Sequence[Path]) -> list[Verdict]:
    """Return the majority of the complete answers on every pair and question.

    Answers of people who could not tell do not count; as many for A as for B is a tie.

    Raises:
        RunFolderError: A folder is no study, or damaged.
    """
    found: list[Verdict] = []
    for folder in studies:
        study = read_study(folder)
        votes: dict[tuple[str, str], list[int]] = defaultdict(list)
        for answer in complete_answers(folder, study):
            for question, outcome in outcomes(study.mode, answer.choices).items():
                if outcome in _SIGNS:
                    votes[answer.pair, question].append(_SIGNS[outcome])
        for (pair, question), signs in votes.items():
            total, sides = sum(signs), study.by_id[pair]
            label = (total > 0) - (total < 0)
            found.append(Verdict(question, _plain(sides.a.video), _plain(sides.b.video), label))
    return found


def agreements(
    verdicts: Sequence[Verdict],
    numbers: Mapping[Path, Mapping[str, float]],
    sign_of: Callable[[str], int],
) -> list[Agreement]:
    """Return the accuracy of every measure on every question, over the pairs that have both.

    Args:
        verdicts: What people said.
        numbers: Resolved path of a video -> measure -> value.
        sign_of: 1 where more of a measure is better (or nobody knows), −1 where less is.

    Raises:
        ConfigError: No pair has both of its videos among the clips.
    """
    known = [verdict for verdict in verdicts if verdict.a in numbers and verdict.b in numbers]
    if verdicts and not known:
        raise ConfigError(
            f"--answers: none of {len(verdicts)} answers is about two of these clips, first: "
            f"{verdicts[0].a}; give the folders that were judged"
        )
    measures = dict.fromkeys(name for values in numbers.values() for name in values)
    found: list[Agreement] = []
    for question in dict.fromkeys(verdict.question for verdict in known):
        asked = [verdict for verdict in known if verdict.question == question]
        for name in measures:
            both = [v for v in asked if name in numbers[v.a] and name in numbers[v.b]]
            if both:
                sign = sign_of(name)
                margins = [sign * (numbers[v.a][name] - numbers[v.b][name]) for v in both]
                accuracy = pairwise_accuracy([v.label for v in both], margins)
                found.append(Agreement(name, question, accuracy))
    return found


def _plain(video: str) -> Path:
    return Path(video).resolve()
