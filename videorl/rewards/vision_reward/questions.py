"""VisionReward's checklist: 64 yes/no questions, of which 29 have a weight, and its scores.

`videorl/rewards/data/vision_reward.json` names their repository, commit and licence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from videorl.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Question:
    """A line of the checklist; weights are >= 0."""

    id: int
    """1 to 64, as in the authors' list."""
    text: str
    """What is asked; `[[prompt]]` stands for the prompt. Often ends with a line break, which the
    authors' code keeps when it reads lines."""
    dimension: str
    weight: float

    def about(self, prompt: str) -> str:
        """Return the question for one prompt."""
        return self.text.replace("[[prompt]]", prompt)


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer to a question."""

    is_yes: bool
    yes_logit: float
    no_logit: float

    @property
    def yes_probability(self) -> float:
        """P(yes), given that the answer is yes or no."""
        return 1.0 / (1.0 + math.exp(min(self.no_logit - self.yes_logit, 700.0)))


@cache
def checklist() -> tuple[Question, ...]:
    """Return all 64 questions, by id."""
    packaged = Path(__file__).resolve().parents[1] / "data/vision_reward.json"
    content = json.loads(packaged.read_text(encoding="utf-8"))
    asked = dict(enumerate(content["selected_raw_lines"]))
    return tuple(
        Question(
            id=row["id"],
            text=asked.get(row["selected_index"], row["question"] + "\n"),
            dimension=row["dimension"].lower(),
            weight=row["weight"],
        )
        for row in content["questions"]
    )


@cache
def weighted() -> tuple[Question, ...]:
    """Return the 29 questions that have a weight, in the order of the authors' code."""
    return tuple(question for question in checklist() if question.weight > 0)


def reweighted(path: Path) -> tuple[Question, ...]:
    """Return all 64 questions, with weights from a file.

    Args:
        path: A JSON list of 64 weights, by id; or of 29, in the order of the authors'
            `weight.json`, where the other questions have weight 0.

    Raises:
        CheckpointError: The file is missing or not such a list, a weight is negative, or all are 0.
    """
    try:
        weights = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read weights from {path}: {error}") from error
    questions = {len(weighted()): weighted(), len(checklist()): checklist()}
    if not isinstance(weights, list) or len(weights) not in questions:
        raise CheckpointError(
            f"{path} does not hold a list of {' or '.join(map(str, questions))} weights"
        )
    if not all(type(w) in (int, float) and 0 <= w < math.inf for w in weights) or not any(weights):
        raise CheckpointError(f"{path}: weights must be finite numbers >= 0, and not all 0")
    by_id = dict(zip((q.id for q in questions[len(weights)]), weights, strict=True))
    return tuple(replace(q, weight=float(by_id.get(q.id, 0))) for q in checklist())


def dimension_scores(questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
    """Return R of each dimension: the sum of weights of its questions that were answered with yes.

    Dimensions without a weighted question (safety) are 0.
    """
    scores = dict.fromkeys((question.dimension for question in checklist()), 0.0)
    for question, answer in zip(questions, answers, strict=True):
        scores[question.dimension] += question.weight * answer.is_yes
    return scores


def sum_of_yes(weights: Sequence[float], answers: Sequence[Answer]) -> float:
    """Return R = Σ w·1[yes], the score of the paper, in [0, 6.277]."""
    return sum(weight * answer.is_yes for weight, answer in zip(weights, answers, strict=True))


def published(weights: Sequence[float], answers: Sequence[Answer]) -> float:
    """Return the mean of w·(±1), the authors' code's score, in [−0.216, 0.216]; ranks like R."""
    signs = [1.0 if answer.is_yes else -1.0 for answer in answers]
    return sum(w * sign for w, sign in zip(weights, signs, strict=True)) / len(signs)


def continuous(weights: Sequence[float], answers: Sequence[Answer]) -> float:
    """Return Σ w·P(yes): R without its jumps, so that close candidates do not tie."""
    return sum(w * answer.yes_probability for w, answer in zip(weights, answers, strict=True))


TOTALS: dict[str, Callable[[Sequence[float], Sequence[Answer]], float]] = {
    "R": sum_of_yes,
    "published": published,
    "continuous": continuous,
}
"""Value of the option `total` -> function that computes `Score.total`."""
