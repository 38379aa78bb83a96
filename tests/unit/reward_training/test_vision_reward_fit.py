"""VisionReward's weights, from pairs whose true weights are known."""

import json
from pathlib import Path

import numpy as np
import pytest

from videorl.data.benchmarks import Pair
from videorl.errors import ConfigError, DatasetError
from videorl.reward_training.vision_reward_fit import fit_pairs, fit_weights, write_weights
from videorl.rewards.vision_reward.questions import checklist, reweighted
from videorl.types import Score


def test_one_question_by_hand() -> None:
    # "Yes" won 3 of 4 pairs, 1 / (1 + exp(-w)) = 3/4: w is log 3.
    weights = fit_weights([[1.0]] * 4, [1, 1, 1, 0], ridge=1e-9)
    assert weights == pytest.approx([np.log(3)], abs=1e-4)
    # The same pairs the other way round say the same.
    assert fit_weights([[-1.0]] * 4, [0, 0, 0, 1], ridge=1e-9) == pytest.approx(weights)


def preferences(true_Q: list[float], count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    differences = rng.integers(0, 2, (count, len(true_Q))) - rng.integers(
        0, 2, (count, len(true_Q))
    )
    likely = 1 / (1 + np.exp(-differences @ np.array(true_Q)))
    return differences, rng.random(count) < likely


def test_known_weights_are_found() -> None:
    true = [1.5, 0.8, 0.0, 0.3]
    assert fit_weights(*preferences(true, 40_000)) == pytest.approx(true, abs=0.05)


def test_a_harmful_question_is_masked_and_the_others_fitted_without_it() -> None:
    differences, prefers_first = preferences([1.5, 0.8, -1.0, 0.3], 4000)
    weights = fit_weights(differences, prefers_first)
    assert weights[2] == 0.0  # "yes" to it is worse, but "no" shall not be rewarded
    without = fit_weights(np.delete(differences, 2, axis=1), prefers_first)
    assert np.delete(weights, 2) == pytest.approx(without, abs=1e-4)
    assert (without > 0.1).all()


def test_weights_are_the_minimum_under_the_constraint() -> None:
    differences, prefers_first = preferences([1.0, 0.2, -0.5, 0.6], 500, seed=1)
    differences = np.column_stack([differences, differences[:, 0]])  # always answered alike
    weights = fit_weights(differences, prefers_first, ridge=1e-3)
    likely = 1 / (1 + np.exp(-differences @ weights))
    slope = differences.T @ (likely - prefers_first) / 500 + 1e-3 * weights
    assert slope[weights > 0] == pytest.approx(0.0, abs=1e-6)
    assert (slope[weights == 0] >= -1e-6).all()
    assert (weights == 0).any()
    assert weights[0] == pytest.approx(weights[4])


def test_pairs_that_can_be_separated_have_finite_weights() -> None:
    weights = fit_weights([[1.0], [1.0]], [1, 1])
    assert 0 < weights[0] < 20


@pytest.mark.parametrize(
    ("differences", "prefers"), [([], []), ([[1.0]], [0.5]), ([[1.0]], [1, 0])]
)
def test_pairs_that_teach_nothing_are_refused(
    differences: list[list[float]], prefers: list[float]
) -> None:
    with pytest.raises(ValueError, match="expected"):
        fit_weights(differences, prefers)
    with pytest.raises(ConfigError, match=r"ridge must be > 0, got 0\.0"):
        fit_weights([[1.0]], [1], ridge=0.0)


def score(*yes_ids: int) -> Score:
    answers = tuple("yes" if question.id in yes_ids else "no" for question in checklist())
    return Score({}, 0.0, {"answers": answers})


def test_a_file_of_weights_from_answers(tmp_path: Path) -> None:
    good, bad, other = ("good.mp4", "a cat"), ("bad.mp4", "a cat"), ("other.mp4", "a cat")
    pairs = [
        Pair(("good.mp4", "a cat\n"), bad, {"Overall": 1}),
        Pair(bad, good, {"Overall": -1}),
        Pair(good, bad, {"Overall": 0}),
        Pair(good, other, {"Overall": 1}),
    ]
    scores = {good: score(1, 60), bad: score(5), other: "video_unscorable"}
    fit = fit_pairs(pairs, scores)
    assert (fit.num_pairs, fit.num_ties, fit.num_skipped) == (2, 1, 1)
    assert fit.accuracy.without_ties == 1.0
    write_weights(tmp_path / "weight.json", fit)
    assert json.loads((tmp_path / "weight.json").read_text()) == list(fit.weights)
    questions = reweighted(tmp_path / "weight.json")
    assert [question.id for question in questions if question.weight > 0] == [1, 60]
    assert questions[0].weight == pytest.approx(questions[59].weight)


def test_answers_to_other_questions_are_refused() -> None:
    pair = Pair(("a", ""), ("b", ""), {"Overall": 1})
    with pytest.raises(DatasetError, match="a: got 29 answers, the checklist has 64 questions"):
        fit_pairs([pair], dict.fromkeys([pair.a, pair.b], Score({}, 0.0, {"answers": ["no"] * 29})))
    with pytest.raises(DatasetError, match="none of 1 pairs"):
        fit_pairs([pair], {})
