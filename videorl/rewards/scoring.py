"""Turn the answers of reward models into one checked score per candidate.

A candidate that cannot be scored has a *reason* (a short string) instead, which is counted:
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
"""A checked score, or the reason why there is none."""


def check(score: Score, dimensions: Sequence[str]) -> Result:
    """Return `score` if it is finite and has exactly `dimensions`, otherwise a reason."""
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
    """Score videos and check the scores; a video that the model refuses gives a reason.

    Raises:
        RewardError: The number of scores is not the number of videos.
    """

    def result(scored: Score | VideoError | PromptError) -> Result:
        if isinstance(scored, Score):
            return check(scored, model.dimensions)
        return "prompt_unscorable" if isinstance(scored, PromptError) else "video_unscorable"

    return [result(scored) for scored in score_each(model, videos, prompts)]


def explained_scores(
    model: RewardModel, videos: Sequence[Any], prompts: Sequence[str]
) -> list[Result]:
    """Do the same as `checked_scores`, with the model's error text as the reason of a refusal."""
    return [
        check(scored, model.dimensions) if isinstance(scored, Score) else str(scored)
        for scored in score_each(model, videos, prompts)
    ]


def check_rewards(rewards: Sequence[RewardConfig]) -> None:
    """Check that there is a reward model, and that no two have the same key.

    Raises:
        ConfigError: There is none, or two have the same key.
    """
    if not rewards:
        raise ConfigError("rewards: at least one reward model is needed, got an empty list")
    twice = [name for name, count in Counter(reward.key for reward in rewards).items() if count > 1]
    if twice:
        raise ConfigError(f"rewards: {twice[0]!r} is listed twice; give each its own label")


def check_dimension_weights(config: RewardConfig, dimensions: Sequence[str]) -> None:
    """Check that the model scores every dimension that has a weight.

    Raises:
        ConfigError: `dimension_weights` names an unknown dimension.
    """
    if unknown := sorted(set(config.dimension_weights) - set(dimensions)):
        raise ConfigError(
            f"rewards[{config.key}].dimension_weights: unknown dimension {unknown[0]!r}; "
            f"the model scores {', '.join(dimensions)}"
        )


def combine(scores: Mapping[str, Score], rewards: Sequence[RewardConfig]) -> Score:
    """Merge the scores that several models gave one video, keyed by `RewardConfig.key`.

    The total is the sum over models of `weight` times the model's own total. Where a model has
    `dimension_weights`, the weighted sum of those dimensions takes the place of its total.
    """
    total, by_model = 0.0, dict[str, float]()
    for reward in rewards:
        score = scores[reward.key]
        weights = reward.dimension_weights
        own = sum(weights[name] * score.dimensions[name] for name in weights)
        by_model[reward.key] = own if weights else score.total
        total += reward.weight * by_model[reward.key]
    dimensions, raw = named(scores, rewards)
    return Score(dimensions, total, raw, by_model if len(rewards) > 1 else {})


def named(
    scores: Mapping[str, Score], rewards: Sequence[RewardConfig]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the dimensions and the raw values of the models in `scores`, under unique names.

    Names stay as they are if there is one reward, and become `key.name` otherwise.
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
    """Combine the results of all models for a group; count candidates without a score.

    Args:
        group: The candidates that were scored.
        results: `RewardConfig.key` -> one result per candidate, in order.
        rewards: The models' configurations, in the recipe's order.
        unseen: For each candidate, quality metrics that no reward sees.

    Returns:
        The scored candidates in order. `dropped` counts every other candidate once, under the
        reason of the first model that gave it no score, and those that had no video before.
    """
    scored: list[ScoredCandidate] = []
    dropped: Counter[str] = Counter(group.dropped)
    for index, candidate in enumerate(group.candidates):
        by_model = {reward.key: results[reward.key][index] for reward in rewards}
        scores = {key: found for key, found in by_model.items() if isinstance(found, Score)}
        if len(scores) == len(by_model):
            score = combine(scores, rewards)
            scored.append(ScoredCandidate(candidate, score, unseen[index]))
        else:
            dropped[next(found for found in by_model.values() if isinstance(found, str))] += 1
    return ScoredGroup(group.prompt, group.prompt_embeds, tuple(scored), dict(dropped))


def nothing_to_score(group: CandidateGroup) -> ScoredGroup:
    """Return the scored group of one whose candidates are all lost: models take no empty batch."""
    return ScoredGroup(group.prompt, group.prompt_embeds, (), group.dropped)


def score_each(
    model: RewardModel, videos: Sequence[Any], prompts: Sequence[str]
) -> list[Score | VideoError | PromptError]:
    """Score videos; for one that cannot be scored, return its error instead.

    Args:
        model: Gets the whole batch, and smaller and smaller parts of it if that fails.
        videos: Files or `Video`s, whichever the model takes.
        prompts: One per video.

    Raises:
        ValueError: The numbers of videos and prompts differ.
        RewardError: The number of scores is not the number of videos.
    """
    if len(videos) != len(prompts):
        raise ValueError(f"got {len(videos)} videos for {len(prompts)} prompts")
    try:
        scores: list[Score | VideoError | PromptError] = [*model.score(videos, prompts)]
    except (VideoError, PromptError) as error:
        if len(videos) == 1:
            return [error]
        # By halves, so that most of the other videos stay in large batches.
        half = len(videos) // 2
        parts = score_each(model, videos[:half], prompts[:half])
        parts += score_each(model, videos[half:], prompts[half:])
        return [_placed(part, index, len(videos)) for index, part in enumerate(parts)]
    if len(scores) != len(videos):
        raise RewardError(
            f"{type(model).__name__} gave {len(scores)} scores for {len(videos)} videos"
        )
    return scores


def _placed(
    result: Score | VideoError | PromptError, index: int, count: int
) -> Score | VideoError | PromptError:
    """Return the result of a video; an error is changed to name its place among all `count`."""
    if not isinstance(result, VideoError | PromptError):
        return result
    place = rf"\1 {index} of {count}"
    return type(result)(re.sub(r"^(video|prompt) \d+ of \d+\b", place, str(result)))
