"""VisionReward's checklist and what is made of the answers."""

from pathlib import Path

import pytest

from videorl.errors import CheckpointError
from videorl.rewards.vision_reward import questions as vision_questions
from videorl.rewards.vision_reward.questions import Answer, checklist, reweighted, weighted

WEIGHTS = [question.weight for question in weighted()]


def answers(*yes_ids: int) -> list[Answer]:
    """Return answers to the 29 questions, yes to those with the given ids."""
    return [Answer(question.id in yes_ids, 0.0, 0.0) for question in weighted()]


def test_there_are_64_questions_and_29_are_asked_with_their_line_breaks() -> None:
    assert [question.id for question in checklist()] == list(range(1, 65))
    assert len(weighted()) == 29
    # As the authors' code reads them: all but the last keep the line break of their file.
    assert [question.text.endswith("?\n") for question in weighted()] == [True] * 28 + [False]
    assert sum(WEIGHTS) == pytest.approx(6.27717, abs=1e-5)
    wanted = 'Does the video meet all the requirements stated in the text "a [cat]"?\n'
    assert checklist()[0].about("a [cat]") == wanted


def test_dimensions_sum_the_weights_answered_with_yes() -> None:
    # 1 and 2 are alignment, 60 is physics.
    scores = vision_questions.dimension_scores(weighted(), answers(1, 2, 60))
    assert len(scores) == 9
    assert scores["alignment"] == pytest.approx(0.95439 + 0.25240, abs=1e-5)
    assert scores["physics"] == pytest.approx(0.39418, abs=1e-5)
    assert sum(scores.values()) == pytest.approx(0.95439 + 0.25240 + 0.39418, abs=1e-4)
    assert scores["safety"] == 0.0


def test_totals() -> None:
    some = answers(1, 60)
    total = 0.95439 + 0.39418
    assert vision_questions.sum_of_yes(WEIGHTS, some) == pytest.approx(total, abs=1e-5)
    assert vision_questions.published(WEIGHTS, some) == pytest.approx(
        (2 * total - 6.27717) / 29, abs=1e-6
    )


def test_the_continuous_total_tells_close_candidates_apart() -> None:
    # Logits 1 apart: P(yes) = 1 / (1 + 1/e) = 0.731059.
    sure = [Answer(True, 3.0, 2.0)]
    unsure = [Answer(True, 2.1, 2.0)]
    assert vision_questions.continuous([2.0], sure) == pytest.approx(2 * 0.731059, abs=1e-5)
    assert vision_questions.sum_of_yes([2.0], sure) == vision_questions.sum_of_yes([2.0], unsure)
    assert vision_questions.continuous([2.0], sure) > vision_questions.continuous([2.0], unsure)
    assert Answer(False, -5000.0, 5000.0).yes_probability == pytest.approx(0.0)
    assert Answer(True, 5000.0, -5000.0).yes_probability == 1.0


def test_weights_of_a_file_are_by_id_or_in_the_authors_order(tmp_path: Path) -> None:
    path = tmp_path / "weight.json"
    path.write_text(str(WEIGHTS))
    assert reweighted(path) == checklist()
    path.write_text(str([0.0] * 63 + [2]))
    assert [question.id for question in reweighted(path) if question.weight > 0] == [64]
    assert reweighted(path)[63].weight == 2.0


@pytest.mark.parametrize("content", ["[1.0]", "{}", "no list", str([-1.0] * 29), str([0] * 64)])
def test_other_files_are_no_weights(content: str, tmp_path: Path) -> None:
    path = tmp_path / "weight.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"weight\.json"):
        reweighted(path)
