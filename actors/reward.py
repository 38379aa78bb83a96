"""Reward workers, and the driver's scorer: one pool per reward model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray import ObjectRef
from ray.actor import ActorHandle

from actors.placement import Role, start_actor
from actors.pool.pool import ElasticPool
from actors.pool.state import Limits, Reply
from actors.worker_process import own_node, prepare_process
from videorl.config import RewardConfig
from videorl.data.clips import Clip
from videorl.errors import WorkLostError
from videorl.futures import gathered, mapped, recovered
from videorl.protocols import RewardModel
from videorl.recipes.secrets import private_variables, public_runtime_env
from videorl.rewards.scoring import (
    Result,
    check_dimension_weights,
    check_rewards,
    checked_scores,
    explained_scores,
    score_group,
)
from videorl.types import CandidateGroup, ScoredGroup, Video


@dataclass(frozen=True, slots=True)
class Scored:
    """What a reward worker says of one group: a result per video, in order."""

    results: list[Result]
    unseen: list[Mapping[str, float]]
    """Quality metrics that no reward sees; empty ones unless this pool was asked to measure."""


class RewardWorker:
    """One reward model.

    Args:
        config: Which model.
        load: Builds it.
        unseen: Measures the metrics that no reward sees; None = another pool does.
    """

    def __init__(
        self,
        config: RewardConfig,
        load: Callable[[RewardConfig], RewardModel],
        unseen: Callable[[Video], Mapping[str, float]] | None,
    ) -> None:
        self._config = config
        self._load = load
        self._unseen = unseen
        self._model: RewardModel | None = None

    def ready(self) -> str:
        """Load the model, once; return the id of this node."""
        if self._model is None:
            os.environ.update(private_variables(self._config.runtime_env))
            prepare_process(self._config.num_cpus)
            model = self._load(self._config)
            check_dimension_weights(self._config, model.dimensions)
            self._model = model
        return own_node()

    def score(self, prompt: str, *videos: Video) -> Scored:
        """Score the videos of one prompt."""
        assert self._model is not None, "the pool waits for ready()"
        results = checked_scores(self._model, videos, [prompt] * len(videos))
        unseen = [{} if self._unseen is None else self._unseen(video) for video in videos]
        return Scored(results, unseen)

    def score_clips(self, clips: Sequence[Clip]) -> list[Result]:
        """Score video files; clips that hold the file itself get one for as long as it takes."""
        assert self._model is not None, "the pool waits for ready()"
        with TemporaryDirectory() as folder:
            files = [_as_file(clip, Path(folder, str(n))) for n, clip in enumerate(clips)]
            results = explained_scores(self._model, files, [clip.prompt for clip in clips])
        named = zip(results, files, clips, strict=True)
        return [
            one.replace(str(file), clip.id) if isinstance(one, str) else one
            for one, file, clip in named
        ]


def _as_file(clip: Clip, path: Path) -> Path:
    if isinstance(clip.content, str):
        return Path(clip.content)
    path.write_bytes(clip.content)
    return path


def load_reward(config: RewardConfig) -> RewardModel:
    """Load the model that a recipe names."""
    from videorl.rewards import load

    return load(config.name, config.path, **config.options)


class RayScorer:
    """Implements `videorl.protocols.Scorer`; pixels go from generators to reward workers only.

    Args:
        rewards: The models; each gets a pool with its own resources and runtime environment.
        options: Ray options of each model's workers, in the same order.
        limits: Of each pool, in the same order.
        unseen: Measures what no reward sees; runs in the first model's pool. None = nothing does.
        load: Builds a model; the default reads the recipe's names.
    """

    def __init__(
        self,
        rewards: Sequence[RewardConfig],
        options: Sequence[dict[str, Any]],
        limits: Sequence[Limits],
        unseen: Callable[[Video], Mapping[str, float]] | None,
        load: Callable[[RewardConfig], RewardModel] = load_reward,
    ) -> None:
        check_rewards(rewards)
        self._rewards = rewards
        self.pools = [
            ElasticPool(
                f"reward {reward.key}",
                _creator(reward, one, load, unseen if index == 0 else None),
                limit,
            )
            for index, (reward, one, limit) in enumerate(zip(rewards, options, limits, strict=True))
        ]

    def submit(self, group: CandidateGroup) -> Future[ScoredGroup]:
        """Queue one group with every model.

        The future fails with `MediaLostError` if a video is gone, and as the pools' do.
        """
        videos = [candidate.video for candidate in group.candidates]

        def call(worker: ActorHandle) -> list[ObjectRef]:
            return [worker.score.remote(group.prompt.text, *videos)]

        def combined(replies: list[Reply]) -> ScoredGroup:
            results = {
                reward.key: reply.value.results
                for reward, reply in zip(self._rewards, replies, strict=True)
            }
            return score_group(group, results, self._rewards, replies[0].value.unseen)

        return mapped(gathered([pool.submit(call) for pool in self.pools]), combined)

    def submit_clips(self, clips: Sequence[Clip]) -> Future[dict[str, list[Result]]]:
        """Queue video files with every model; the answer has one result per clip for each.

        Clips that no worker survives are scored one by one, so that the others get their scores.
        The future fails if a model cannot start or breaks its contract.
        """
        scored = gathered([_score_clips(pool, clips) for pool in self.pools])
        keys = [reward.key for reward in self._rewards]
        return mapped(scored, lambda lists: dict(zip(keys, lists, strict=True)))

    def close(self) -> None:
        """Stop every worker."""
        for pool in self.pools:
            pool.close()


def start_scorer(
    rewards: Sequence[RewardConfig],
    roles: Sequence[Role],
    unseen: Callable[[Video], Mapping[str, float]] | None,
) -> RayScorer:
    """Start the workers of every model with the resources of its role, given in the same order."""
    environments = [public_runtime_env(reward.runtime_env) for reward in rewards]
    options = [
        role.options() | ({"runtime_env": environment} if environment else {})
        for role, environment in zip(roles, environments, strict=True)
    ]
    return RayScorer(rewards, options, [reward_limits(reward) for reward in rewards], unseen)


def reward_limits(reward: RewardConfig) -> Limits:
    """Return the sizes and the patience of a reward model's pool."""
    return Limits(
        min_workers=reward.num_workers,
        max_workers=reward.most_workers,
        max_retries=reward.max_retries,
        request_timeout_s=reward.worker_timeout_s,
        idle_release_s=reward.idle_release_s,
    )


def _score_clips(pool: ElasticPool, clips: Sequence[Clip]) -> Future[list[Result]]:
    batch = ray.put(list(clips))
    reply = pool.submit(lambda worker: [worker.score_clips.remote(batch)])

    def one_by_one(error: Exception) -> Future[list[Result]]:
        if not isinstance(error, WorkLostError):
            raise error
        if len(clips) == 1:
            lost: Future[list[Result]] = Future()
            lost.set_result([str(error)])
            return lost
        singles = gathered([_score_clips(pool, [clip]) for clip in clips])
        return mapped(singles, lambda lists: [result for one in lists for result in one])

    return recovered(mapped(reply, lambda one: one.value), one_by_one)


def _creator(
    reward: RewardConfig,
    options: dict[str, Any],
    load: Callable[[RewardConfig], RewardModel],
    unseen: Callable[[Video], Mapping[str, float]] | None,
) -> Callable[[int], ActorHandle]:
    return lambda _: start_actor(RewardWorker, options, reward, load, unseen)
