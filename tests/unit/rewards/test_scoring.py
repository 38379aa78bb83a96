"""Every score is checked; models are combined by hand-checked sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from tests.fakes import FakeReward, grey, group_of
from videorl.config import RewardConfig
from videorl.errors import ConfigError, PromptError, RewardError, VideoError
from videorl.rewards.scoring import (
    check,
    check_dimension_weights,
    check_rewards,
    checked_scores,
    combine,
    explained_scores,
    score_group,
)
from videorl.types import Score, Video

FIRST = Score({"quality": 1.0, "motion": 3.0}, total=10.0, raw={"logit": 7})
SECOND = Score({"quality": -2.0}, total=-2.0)


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (Score({"a": math.nan, "b": 0.0}, 0.0), "score_not_finite"),
        (Score({"a": 0.0, "b": -math.inf}, 0.0), "score_not_finite"),
        (Score({"a": 0.0, "b": 0.0}, math.inf), "score_not_finite"),
        (Score({"a": 0.0}, 0.0), "score_missing_dimension"),
        (Score({"a": 0.0, "b": 0.0, "c": 0.0}, 0.0), "score_unknown_dimension"),
    ],
)
def test_a_bad_score_becomes_a_reason(score: Score, reason: str) -> None:
    assert check(score, ("a", "b")) == reason


def test_a_good_score_passes_unchanged() -> None:
    score = Score({"a": 0.0, "b": -1.5}, 0.5)
    assert check(score, ("b", "a")) is score


class Picky(FakeReward):
    """Refuses black videos, like a model that cannot read them."""

    def score(self, videos: Sequence[Video], prompts: Sequence[str]) -> list[Score]:
        """Score, or refuse all of them."""
        if any(video.frames.max() == 0 for video in videos):
            raise VideoError("black")
        return super().score(videos, prompts)


def test_a_video_that_is_refused_does_not_cost_its_neighbours() -> None:
    results = checked_scores(Picky(), [grey(51), grey(0), grey(255)], ["p"] * 3)
    assert results[1] == "video_unscorable"
    assert [result.total for result in results if isinstance(result, Score)] == pytest.approx(
        [0.2, 1.0]
    )


class Particular(FakeReward):
    """Refuses empty prompts."""

    def score(self, videos: Sequence[Video], prompts: Sequence[str]) -> list[Score]:
        """Score, or refuse all of them."""
        if "" in prompts:
            raise PromptError("a prompt is empty")
        return super().score(videos, prompts)


def test_a_prompt_that_is_refused_does_not_cost_its_neighbours() -> None:
    videos, prompts = [grey(51), grey(0), grey(255)], ["p", "", "p"]
    results = checked_scores(Particular(), videos, prompts)
    assert results[1] == "prompt_unscorable"
    assert [result.total for result in results if isinstance(result, Score)] == pytest.approx(
        [0.2, 1.0]
    )
    assert explained_scores(Particular(), videos, prompts)[1] == "a prompt is empty"


def test_a_wrong_number_of_scores_is_an_error() -> None:
    class Short(FakeReward):
        def score(self, videos: Sequence[Video], prompts: Sequence[str]) -> list[Score]:
            return []

    with pytest.raises(RewardError, match="Short gave 0 scores for 1 videos"):
        checked_scores(Short(), [grey(1)], ["p"])


def test_one_model_keeps_its_names_and_total() -> None:
    combined = combine({"one": FIRST}, [RewardConfig(name="one", weight=0.5)])
    assert combined == Score({"quality": 1.0, "motion": 3.0}, 5.0, {"logit": 7})


def test_several_models_are_summed_under_their_own_names() -> None:
    rewards = [
        RewardConfig(name="one", weight=2.0, dimension_weights={"motion": 0.5}),
        RewardConfig(name="two"),
    ]
    combined = combine({"one": FIRST, "two": SECOND}, rewards)
    assert combined.total == pytest.approx(2.0 * 0.5 * 3.0 - 2.0)
    assert combined.dimensions == {"one.quality": 1.0, "one.motion": 3.0, "two.quality": -2.0}
    assert combined.raw == {"one.logit": 7}


def test_one_model_may_be_used_twice_under_labels() -> None:
    rewards = [RewardConfig(name="one"), RewardConfig(name="one", label="again", weight=-1.0)]
    check_rewards(rewards)
    combined = combine({"one": FIRST, "again": SECOND}, rewards)
    assert combined.dimensions == {"one.quality": 1.0, "one.motion": 3.0, "again.quality": -2.0}
    assert combined.total == 12.0


def test_a_candidate_is_dropped_once_whichever_model_failed() -> None:
    rewards = [RewardConfig(name="one"), RewardConfig(name="two")]
    results = {
        "one": [FIRST, "score_not_finite", FIRST],
        "two": [SECOND, "video_unscorable", "video_unscorable"],
    }
    group = group_of([grey(1), grey(2), grey(3)])
    scored = score_group(group, results, rewards, [{"blur": 0.1}, {}, {}])
    assert [kept.candidate.index for kept in scored.candidates] == [0]
    assert scored.candidates[0].score.total == 8.0
    assert scored.candidates[0].unseen == {"blur": 0.1}
    assert scored.dropped == {"score_not_finite": 1, "video_unscorable": 1}


def test_settings_that_cannot_be_combined_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        check_rewards([])
    with pytest.raises(ConfigError, match="'one' is listed twice"):
        check_rewards([RewardConfig(name="one"), RewardConfig(name="one")])
    with pytest.raises(ConfigError, match="unknown dimension 'qality'; the model scores quality"):
        check_dimension_weights(
            RewardConfig(name="one", dimension_weights={"qality": 1.0}), ("quality",)
        )
