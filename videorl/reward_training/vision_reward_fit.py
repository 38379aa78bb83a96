"""Learn VisionReward's linear weights from human preferences between pairs of videos.

The weights are those of a logistic regression on differences of answers (arXiv 2412.21059, eq. 5),
kept >= 0 (Algorithm 1 of its appendix). "yes" is the better answer to every question, so a negative
weight could only compensate for correlated questions, and would reward a fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videorl.data.benchmarks import OVERALL, Pair
from videorl.data.clips import Key
from videorl.errors import ConfigError, DatasetError
from videorl.evaluation.agreement import PairwiseAccuracy, pairwise_accuracy
from videorl.files import write_text
from videorl.rewards.vision_reward.questions import checklist
from videorl.types import Score


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights of the whole checklist, by id, and statistics of the fit."""

    weights: tuple[float, ...]
    num_pairs: int
    num_ties: int
    """Pairs that were left out because people had no preference."""
    num_skipped: int
    """Pairs that were left out because a video has no answers."""
    accuracy: PairwiseAccuracy
    """Accuracy on the pairs that the weights were fitted to."""


def fit_weights(
    differences_NQ: npt.ArrayLike,
    prefers_first_N: npt.ArrayLike,
    *,
    ridge: float = 1e-4,
    tolerance: float = 1e-7,
    max_iterations: int = 200_000,
) -> npt.NDArray[np.float64]:
    """Return the weights [Q] >= 0 with the highest likelihood of the preferences.

    The authors alternate epochs of SGD with setting negative weights to 0, which converges to the
    minimum under w >= 0. Here it is found by accelerated projected gradient steps over all pairs,
    which need no learning rate, order or seed. A small ridge term, which the authors do not have,
    keeps the weights finite where pairs are separable, and unique where questions always have the
    same answers.

    Args:
        differences_NQ: Answers (1 yes, 0 no) for the first video minus those for the second.
        prefers_first_N: 1 where people prefer the first video, 0 where they prefer the second.
        ridge: Factor (> 0) of the term (ridge / 2) · |w|² in the loss.
        tolerance: Largest gradient of the loss that counts as 0.
        max_iterations: Number of steps after which to give up.

    Raises:
        ValueError: The shapes do not match, there is no pair, or the steps do not converge.
        ConfigError: The ridge is not above 0.
    """
    differences = np.asarray(differences_NQ, np.float64)
    preferences = np.asarray(prefers_first_N, np.float64)
    if differences.ndim != 2 or not len(differences) or preferences.shape != differences.shape[:1]:
        raise ValueError(
            f"expected differences [N > 0, Q] and preferences [N], got {differences.shape} "
            f"and {preferences.shape}"
        )
    if not np.isin(preferences, (0, 1)).all():
        raise ValueError("expected preferences 0 or 1, without ties")
    if not ridge > 0:
        raise ConfigError(f"ridge must be > 0, got {ridge}")
    count = len(differences)
    # The second derivative of the log loss is at most 1/4, so these steps cannot overshoot.
    curvature = np.linalg.norm(differences, 2) ** 2 / (4 * count) + ridge
    root = np.sqrt(ridge / curvature)
    weights = ahead = np.zeros(differences.shape[1])
    for _ in range(max_iterations):
        likely_N = 1.0 / (1.0 + np.exp(np.clip(-differences @ ahead, -700, 700)))
        slope_Q = differences.T @ (likely_N - preferences) / count + ridge * ahead
        after = np.maximum(ahead - slope_Q / curvature, 0.0)
        if np.abs(after - ahead).max(initial=0.0) * curvature <= tolerance:
            return after
        ahead = after + (1 - root) / (1 + root) * (after - weights)
        weights = after
    raise ValueError(f"no weights found in {max_iterations} steps; a larger ridge than {ridge}?")


def fit_pairs(
    pairs: Sequence[Pair], scores: Mapping[Key, Score | str], *, ridge: float = 1e-4
) -> Fit:
    """Fit the weights of all 64 questions to labelled pairs.

    Args:
        pairs: Pairs with the label `Overall`; ties are left out.
        scores: Scores of `vision_reward` with `questions: all`, by video and stripped prompt (see
            `videorl.data.score_reading`). Pairs without both scores are left out.
        ridge: See `fit_weights`.

    Raises:
        ConfigError: The ridge is not above 0.
        DatasetError: No pair is left, or a score does not have the answers to all questions.
    """
    differences: list[npt.NDArray[np.float64]] = []
    labels: list[int] = []
    counts = {"ties": 0, "skipped": 0}
    for pair in pairs:
        first, second = (scores.get((key[0], key[1].strip())) for key in (pair.a, pair.b))
        label = pair.labels.get(OVERALL)
        if not (isinstance(first, Score) and isinstance(second, Score)) or label is None:
            counts["skipped"] += 1
        elif label == 0:
            counts["ties"] += 1
        else:
            differences.append(_features(first, pair.a) - _features(second, pair.b))
            labels.append(label)
    if not labels:
        raise DatasetError(
            f"none of {len(pairs)} pairs has a preference and the answers of both videos"
        )
    differences_NQ = np.stack(differences)
    weights_Q = fit_weights(differences_NQ, np.array(labels) > 0, ridge=ridge)
    accuracy = pairwise_accuracy(labels, differences_NQ @ weights_Q)
    return Fit(tuple(weights_Q.tolist()), len(labels), counts["ties"], counts["skipped"], accuracy)


def write_weights(path: Path, fit: Fit) -> None:
    """Write a JSON list of weights like the published `weight.json`, but of all questions by id.

    `rewards.load("vision_reward", ..., weights=path)` reads it.
    """
    write_text(path, "[" + ",\n ".join(map(repr, fit.weights)) + "]\n")


def _features(score: Score, key: Key) -> npt.NDArray[np.float64]:
    answers = score.raw.get("answers", ())
    if len(answers) != len(checklist()):
        raise DatasetError(
            f"{key[0]}: got {len(answers)} answers, the checklist has {len(checklist())} "
            "questions; score with the option questions=all of vision_reward"
        )
    return np.array([answer == "yes" for answer in answers], np.float64)
