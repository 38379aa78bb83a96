import json
from collections.abc import Sequence

import pytest

from videorl.evaluation.evaluate import format_summary, summarise
from videorl.types import (
    Candidate,
    Prompt,
    Score,
    ScoredCandidate,
    ScoredGroup,
    WeightVersion,
)


def groups(
    totals_PG: Sequence[Sequence[float]], motion: float = 0.5, quality: float = 0.0
) -> list[ScoredGroup]:
    """One prompt per row; text alignment is the total less `quality`."""
    made = []
    for p, row in enumerate(totals_PG):
        prompt = Prompt(p, f"prompt {p}")
        scored = tuple(
            ScoredCandidate(
                Candidate(0, prompt, g, 100 * p + g, WeightVersion(0, ""), None, None),
                Score({"visual_quality": quality, "text_alignment": total - quality}, total),
                {"dynamic_degree": motion, "dark_pixel_share": 0.0},
            )
            for g, total in enumerate(row)
        )
        made.append(ScoredGroup(prompt, None, scored, {}))
    return made


# Base samples of each prompt: total 0 for the one that shares its seed, then up to 1.
BASE = [[0.0, 1.0, *[0.5] * 14]] * 4


def test_summary_by_hand() -> None:
    summary = summarise(groups(BASE), groups([[1.0], [1.0], [1.0], [0.0]], 0.55))
    assert (summary.total.before, summary.total.after) == (0.0, 0.75)
    assert summary.total.difference.mean == 0.75
    assert summary.win_rate == (3 + 0.5) / 4
    assert summary.best_of_k[1] == 0.5
    # The 1 is among 8 of 16 half the time, otherwise the best is 0.5.
    assert summary.best_of_k[8] == pytest.approx(0.75)
    assert summary.best_of_k[16] == 1.0
    assert summary.unseen["dynamic_degree"].relative == pytest.approx(0.1)
    assert summary.unseen["dark_pixel_share"].relative is None
    assert summary.verdicts == {
        "reward_rose": True,
        "beats_best_of_8": True,
        "beats_best_of_16": False,
        "no_dimension_fell": True,
        "dynamic_degree_kept": True,
    }


def test_each_verdict_can_fail() -> None:
    worse = summarise(groups(BASE), groups([[0.4], [-0.4], [0.1], [-0.1]], 0.44, quality=-0.1))
    assert worse.verdicts == {
        "reward_rose": False,
        "beats_best_of_8": False,
        "beats_best_of_16": False,
        "no_dimension_fell": False,
        "dynamic_degree_kept": False,
    }
    assert worse.dimensions["visual_quality"].difference.mean == pytest.approx(-0.1)
    assert worse.dimensions["text_alignment"].difference.mean == pytest.approx(0.1)


def test_what_cannot_be_judged_is_absent() -> None:
    summary = summarise(groups([[0.0] * 9] * 3, motion=0.0), groups([[1.0]] * 3))
    assert set(summary.verdicts) == {"reward_rose", "beats_best_of_8", "no_dimension_fell"}


def test_only_samples_with_a_shared_seed_are_compared() -> None:
    summary = summarise(groups([[0.0, 2.0, 9.0]] * 2), groups([[1.0, 3.0]] * 2))
    assert (summary.total.before, summary.total.after) == (1.0, 2.0)
    assert (summary.num_base_samples, summary.num_aligned_samples) == (3, 2)


def test_groups_that_do_not_match_are_refused() -> None:
    base = groups([[0.0, 1.0]] * 2)
    with pytest.raises(ValueError, match="same held-out prompts"):
        summarise(base, groups([[0.0]] * 3))
    with pytest.raises(ValueError, match="same held-out prompts"):
        summarise([], [])
    with pytest.raises(ValueError, match="as many samples"):
        summarise(base, groups([[0.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="seeds of prompt 'prompt 0' differ"):
        summarise(base, _other_seeds())


def _other_seeds() -> list[ScoredGroup]:
    shifted = groups([[9.0, 0.0]] * 2)
    return [ScoredGroup(group.prompt, None, group.candidates[1:], {}) for group in shifted]


def test_json_and_text() -> None:
    summary = summarise(groups(BASE), groups([[1.0]] * 4))
    written = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert written["total"]["difference"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert written["best_of_k"]["16"] == 1.0
    assert written["verdicts"]["reward_rose"] is True
    lines = format_summary(summary).splitlines()
    assert lines[2].split() == ["total", "0.000", "1.000", "+1.000", "[+1.000,", "+1.000]"]
    assert "yes reward_rose" in lines
