"""From the answers of reward models to one checked score per candidate.

A candidate that cannot be scored is not an error but a *reason* (a short string), which is counted:
`score_not_finite`, `score_missing_dimension`, `score_unknown_dimension`, `video_unscorable`,
`prompt_unscorable`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from videorl.config import RewardConfig
from videorl.errors import ConfigError, PromptError, RewardError, VideoError
from videorl.protocols import RewardModel
from videorl.types import CandidateGroup, Score, ScoredCandidate, ScoredGroup, Video

Result: TypeAlias = Score | str
"""A score that passed every check, or the reason why there is none."""


def check(score: Score, dimensions: Sequence[str]) -> Result:
    """Return `score` if it is finite and has exactly `dimensions`, otherwise the reason."""
    if set(dimensions) - set(score.dimensions):
        return "score_missing_dimension"
    if set(score.dimensions) - set(dimensions):
        return "score_unknown_dimension"
    if not all(math.isfinite(value) for value in (*score.dimensions.values(), score.total)):
        return "score_not_finite"
    return score


def checked_scores(
    model: RewardModel, videos: Sequence[Video], prompts: Sequence[str]
) -> list[Result]:
    """Score videos; one that the model refuses does not cost its neighbours.

    Raises:
        RewardError: The model gave another number of scores than it got videos.
    """

    def result(one: Score | VideoError | PromptError) -> Result:
        if isinstance(one, Score):
            return check(one, model.dimensions)
        return "prompt_unscorable" if isinstance(one, PromptError) else "video_unscorable"

    return [result(one) for one in score_each(model, videos, prompts)]


def explained_scores(
    model: RewardModel, videos: Sequence[Any], prompts: Sequence[str]
) -> list[Result]:
    """Score video files as `checked_scores` does, but say in the model's words what it refused."""
    return [
        check(one, model.dimensions) if isinstance(one, Score) else str(one)
        for one in score_each(model, videos, prompts)
    ]


def check_rewards(rewards: Sequence[RewardConfig]) -> None:
    """Check that there are reward models and that scores can be named after them.

    Raises:
        ConfigError: None is configured, or two have the same name.
    """
    if not rewards:
        raise ConfigError("rewards: at least one reward model is needed, got an empty list")
    twice = [name for name, count in Counter(one.key for one in rewards).items() if count > 1]
    if twice:
        raise ConfigError(f"rewards: {twice[0]!r} is listed twice; give each its own label")


def check_dimension_weights(config: RewardConfig, dimensions: Sequence[str]) -> None:
    """Check that every weighted dimension is one that the model scores.

    Raises:
        ConfigError: `dimension_weights` names another one.
    """
    if unknown := sorted(set(config.dimension_weights) - set(dimensions)):
        raise ConfigError(
            f"rewards[{config.key}].dimension_weights: unknown dimension {unknown[0]!r}; "
            f"it scores {', '.join(dimensions)}"
        )


def combine(scores: Mapping[str, Score], rewards: Sequence[RewardConfig]) -> Score:
    """Merge the scores of one video by several models, keyed by `RewardConfig.key`.

    The total is the sum over models of `weight` times the model's own total, or times the weighted
    sum of its dimensions where `dimension_weights` are given (dimensions left out then weigh 0).
    """
    total = 0.0
    for reward in rewards:
        score = scores[reward.key]
        weights = reward.dimension_weights
        own = sum(weights[name] * score.dimensions[name] for name in weights)
        total += reward.weight * (own if weights else score.total)
    dimensions, raw = named(scores, rewards)
    return Score(dimensions, total, raw)


def named(
    scores: Mapping[str, Score], rewards: Sequence[RewardConfig]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the dimensions and the raw values of the models that are in `scores`.

    They keep their names if `rewards` is one model and become `model.dimension` otherwise.
    """
    dimensions: dict[str, float] = {}
    raw: dict[str, Any] = {}
    for reward in rewards:
        if (score := scores.get(reward.key)) is None:
            continue
        prefix = f"{reward.key}." if len(rewards) > 1 else ""
        dimensions |= {prefix + name: value for name, value in score.dimensions.items()}
        raw |= {prefix + name: value for name, value in score.raw.items()}
    return dimensions, raw


def score_group(
    group: CandidateGroup,
    results: Mapping[str, Sequence[Result]],
    rewards: Sequence[RewardConfig],
    unseen: Sequence[Mapping[str, float]],
) -> ScoredGroup:
    """Combine every model's results for a group; candidates without a score are counted.

    Args:
        group: The candidates.
        results: `RewardConfig.key` -> one result per candidate, in order.
        rewards: The models, in the recipe's order.
        unseen: Quality metrics of each candidate that no reward sees.

    Returns:
        The scored candidates in order; `dropped` counts each lost candidate once, under the reason
        of the first model that gave none.
    """
    scored: list[ScoredCandidate] = []
    dropped: Counter[str] = Counter()
    for index, candidate in enumerate(group.candidates):
        by_model = {reward.key: results[reward.key][index] for reward in rewards}
        scores = {name: one for name, one in by_model.items() if isinstance(one, Score)}
        if len(scores) == len(by_model):
            score = combine(scores, rewards)
            scored.append(ScoredCandidate(candidate, score, unseen[index]))
        else:
            dropped[next(one for one in by_model.values() if isinstance(one, str))] += 1
    return ScoredGroup(group.prompt, group.prompt_embeds, tuple(scored), dict(dropped))


def score_each(
    model: RewardModel, videos: Sequence[Any], prompts: Sequence[str]
) -> list[Score | VideoError | PromptError]:
    """Score videos; one that cannot be scored gives its error and costs its neighbours nothing.

    Args:
        model: Any reward model; it scores whole batches as long as they hold nothing bad.
        videos: What the model takes: files or `Video`s.
        prompts: One per video.

    Raises:
        ValueError: Videos and prompts differ in number.
        RewardError: The model gave another number of scores than it got videos.
    """
    if len(videos) != len(prompts):
        raise ValueError(f"got {len(videos)} videos for {len(prompts)} prompts")
    try:
        scores: list[Score | VideoError | PromptError] = [*model.score(videos, prompts)]
    except (VideoError, PromptError) as error:
        if len(videos) == 1:
            return [error]
        # Halves keep most of the others in large batches.
        half = len(videos) // 2
        parts = score_each(model, videos[:half], prompts[:half])
        parts += score_each(model, videos[half:], prompts[half:])
        return [_placed(one, index, len(videos)) for index, one in enumerate(parts)]
    if len(scores) != len(videos):
        raise RewardError(
            f"{type(model).__name__} gave {len(scores)} scores for {len(videos)} videos"
        )
    return scores


def _placed(
    result: Score | VideoError | PromptError, index: int, count: int
) -> Score | VideoError | PromptError:
    """Return what became of one video of `count`; errors say its place among all of them."""
    if not isinstance(result, VideoError | PromptError):
        return result
    place = rf"\1 {index} of {count}"
    return type(result)(re.sub(r"^(video|prompt) \d+ of \d+\b", place, str(result)))
