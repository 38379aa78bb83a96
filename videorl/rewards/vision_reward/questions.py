"""VisionReward's checklist: 64 yes/no questions, of which 29 have a weight, and its scores.

`videorl/rewards/data/vision_reward.json` names the repository, commit and licence they come from.
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
    """One line of the checklist; every weight is at least 0."""

    id: int
    """1 to 64, as in the authors' list."""
    text: str
    """What is asked, `[[prompt]]` standing for the prompt; often ends with a line break, because
    the authors' code reads lines and leaves it in."""
    dimension: str
    weight: float

    def about(self, prompt: str) -> str:
        """Return the question for one prompt."""
        return self.text.replace("[[prompt]]", prompt)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to one question."""

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
    """Return the 29 questions that are asked, in the order of the authors' code."""
    return tuple(question for question in checklist() if question.weight > 0)


def reweighted(path: Path) -> tuple[Question, ...]:
    """Return all 64 questions with the weights of a file.

    Args:
        path: A JSON list of 29 weights, in the order of the authors' `weight.json`, whose other
            questions weigh 0; or of 64, by id.

    Raises:
        CheckpointError: The file is missing or no such list, or a weight is negative, or all are 0.
    """
    try:
        weights = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read weights from {path}: {error}") from error
    questions = {len(weighted()): weighted(), len(checklist()): checklist()}
    if not isinstance(weights, list) or len(weights) not in questions:
        raise CheckpointError(f"{path} holds no list of {' or '.join(map(str, questions))} weights")
    if not all(type(one) in (int, float) and 0 <= one < math.inf for one in weights) or not any(
        weights
    ):
        raise CheckpointError(f"{path}: weights must be finite numbers >= 0, and not all 0")
    by_id = dict(zip((one.id for one in questions[len(weights)]), weights, strict=True))
    return tuple(replace(one, weight=float(by_id.get(one.id, 0))) for one in checklist())


def dimension_scores(questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
    """Return R of each dimension: the weights of its questions that were answered with yes.

    Dimensions without a weighted question (safety) are 0.
    """
    scores = dict.fromkeys((question.dimension for question in checklist()), 0.0)
    for question, answer in zip(questions, answers, strict=True):
        scores[question.dimension] += question.weight * answer.is_yes
    return scores


def sum_of_yes(weights: Sequence[float], answers: Sequence[Answer]) -> float:
    """R = Σ w·1[yes], the paper's score, in [0, 6.277]."""
    return sum(weight * answer.is_yes for weight, answer in zip(weights, answers, strict=True))


def published(weights: Sequence[float], answers: Sequence[Answer]) -> float:
    """Mean of w·(±1), the score of the authors' code, in [−0.216, 0.216]; it orders as R does."""
    signs = [1.0 if answer.is_yes else -1.0 for answer in answers]
    return sum(w * sign for w, sign in zip(weights, signs, strict=True)) / len(signs)


def continuous(weights: Sequence[float], answers: Sequence[Answer]) -> float:
    """Σ w·P(yes): R without its jumps, on the same scale, so that close candidates do not tie."""
    return sum(w * answer.yes_probability for w, answer in zip(weights, answers, strict=True))


TOTALS: dict[str, Callable[[Sequence[float], Sequence[Answer]], float]] = {
    "R": sum_of_yes,
    "published": published,
    "continuous": continuous,
}
"""What `Score.total` can be, by the name of the option."""
