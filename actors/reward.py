"""Reward workers, and the driver's scorer: one pool per reward model."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray import ObjectRef
from ray.actor import ActorHandle

from actors.naming import named, shown_by_name
from actors.placement import Role, start_actor
from actors.pool.limits import reward_limits
from actors.pool.pool import ElasticPool
from actors.pool.state import Limits, Reply
from actors.processes.worker_process import hide_gpus, own_node, prepare_process
from actors.seats.seats import Seats
from actors.store.video_files import ENCODING, ScoredThere, VideoFiles
from videorl.config import RewardConfig
from videorl.data.clips import Clip
from videorl.errors import WorkLostError
from videorl.futures import completed, gathered, mapped, recovered
from videorl.protocols import RewardModel
from videorl.recipes.secrets import private_variables, public_runtime_env
from videorl.rewards.diversity import measured
from videorl.rewards.scoring import (
    Result,
    check_dimension_weights,
    check_rewards,
    checked_scores,
    explained_scores,
    nothing_to_score,
    score_group,
)
from videorl.types import CandidateGroup, ScoredGroup, Video

_ENCODERS = 2
"""Videos that a worker encodes at once, a thread each."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A reward worker's answer for one group."""

    results: list[Result]
    """One per video, in order."""
    unseen: list[Mapping[str, float]]
    """Quality metrics that no reward sees, per video; empty unless this pool measures them."""
    seconds: float = 0.0
    """What it took the worker, without the wait for its media."""


@shown_by_name
class RewardWorker:
    """Holds one reward model.

    Args:
        config: The model's section of the recipe.
        load: Builds the model.
        unseen: Measures the metrics that no reward sees; None = this pool does not.
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
        """Load the model if it is not loaded; return the id of this node.

        Raises:
            ConfigError: The recipe weights a dimension that the model does not have.
        """
        if self._model is None:
            os.environ.update(private_variables(self._config.runtime_env))
            hide_gpus()
            model = self._load(self._config)
            if "torch" in sys.modules:  # which takes seconds to import, and not every model needs
                prepare_process(self._config.num_cpus)
            check_dimension_weights(self._config, model.dimensions)
            self._model = model
        return own_node()

    def score(self, prompt: str, *videos: Video) -> Scored:
        """Score all videos of one prompt, and measure what no reward sees."""
        assert self._model is not None, "the pool waits for ready()"
        started = time.perf_counter()
        results = checked_scores(self._model, videos, [prompt] * len(videos))
        unseen: list[Mapping[str, float]] = [{} for _ in videos]
        if self._unseen is not None:
            unseen = measured(self._unseen, videos)
        return Scored(results, unseen, time.perf_counter() - started)

    def encode(self, video: Video) -> tuple[float, bytes]:
        """Return the seconds that it took to encode a video, and the mp4 file."""
        from videorl.data.video_io import encode_mp4

        started = time.perf_counter()
        encoded = encode_mp4(video)
        return time.perf_counter() - started, encoded

    def score_clips(self, clips: Sequence[Clip]) -> list[Result]:
        """Score video files; a clip that holds a file's bytes is written to a temporary file."""
        assert self._model is not None, "the pool waits for ready()"
        with TemporaryDirectory() as folder:
            files = [_as_file(clip, Path(folder, str(n))) for n, clip in enumerate(clips)]
            results = explained_scores(self._model, files, [clip.prompt for clip in clips])
        return [
            result.replace(str(file), clip.id) if isinstance(result, str) else result
            for result, file, clip in zip(results, files, clips, strict=True)
        ]


def _as_file(clip: Clip, path: Path) -> Path:
    if isinstance(clip.content, str):
        return Path(clip.content)
    path.write_bytes(clip.content)
    return path


def load_reward(config: RewardConfig) -> RewardModel:
    """Load the model that a recipe names, see `videorl.rewards.feed.load_configured`."""
    from videorl.rewards.feed import load_configured

    return load_configured(config)


class RayScorer:
    """Implements `videorl.protocols.Scorer`; pixels go from generators to reward workers only.

    Args:
        rewards: The models; each gets a pool with its own resources and runtime environment.
        options: Ray options of each model's workers, in the order of `rewards`.
        limits: Sizes and timeouts of each pool, in the order of `rewards`.
        unseen: Measures what no reward sees, in the first model's pool; None = nothing does.
        load: Builds a model from its section of the recipe.
        run: Name of the run, for `actors.naming.named`.
        seats: Where the workers of each model go, in the order of `rewards`; None = where Ray puts
            them.
    """

    def __init__(
        self,
        rewards: Sequence[RewardConfig],
        options: Sequence[dict[str, Any]],
        limits: Sequence[Limits],
        unseen: Callable[[Video], Mapping[str, float]] | None,
        load: Callable[[RewardConfig], RewardModel] = load_reward,
        run: str = "",
        seats: Sequence[Seats] | None = None,
    ) -> None:
        check_rewards(rewards)
        self._rewards = rewards
        seats = seats or [Seats() for _ in rewards]
        self.score_s = 0.0
        """Seconds that workers spent on groups so far."""
        self.pools = [
            ElasticPool(
                f"reward {reward.key}",
                _creator(reward, worker_options, load, unseen if index == 0 else None, run, where),
                pool_limits,
                where,
            )
            for index, (reward, worker_options, pool_limits, where) in enumerate(
                zip(rewards, options, limits, seats, strict=True)
            )
        ]
        self.files = VideoFiles(self.pools[0])
        """Encodes videos, on the first model's workers."""

    def submit(self, group: CandidateGroup) -> Future[ScoredGroup]:
        """Score one group with every model.

        The future fails with `MediaLostError` if a video is gone, and as those of `ElasticPool`.
        """
        return mapped(self.score(group), lambda found: found[0])

    def score(self, group: CandidateGroup) -> Future[ScoredThere]:
        """Do the same, and tell who of the first model's workers has the pixels."""
        if not group.candidates:
            return completed(lambda: (nothing_to_score(group), None))
        videos = [candidate.video for candidate in group.candidates]
        kind = f"{len(videos)} videos"

        def call(worker: ActorHandle) -> list[ObjectRef]:
            return [worker.score.remote(group.prompt.text, *videos)]

        def combined(replies: list[Reply]) -> ScoredThere:
            self.score_s += sum(reply.value.seconds for reply in replies)
            results = {
                reward.key: reply.value.results
                for reward, reply in zip(self._rewards, replies, strict=True)
            }
            scored = score_group(group, results, self._rewards, replies[0].value.unseen)
            return scored, replies[0].worker

        behind = group.is_behind
        scored = [pool.submit(call, kind, is_behind=behind) for pool in self.pools]
        return mapped(gathered(scored), combined)

    def submit_clips(self, clips: Sequence[Clip]) -> Future[dict[str, list[Result]]]:
        """Score video files with every model; return its key -> one result per clip.

        A batch that no worker survives is scored clip by clip, so that only the clip at fault has
        no score. The future fails if a model cannot start or breaks its contract.
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
    run: str = "",
    seats: Sequence[Seats] | None = None,
) -> RayScorer:
    """Start the workers of every model.

    Args:
        rewards: The models.
        roles: The resources of each model's workers, in the order of `rewards`.
        unseen: Measures what no reward sees; None = nothing does.
        run: Name of the run, for `actors.naming.named`.
        seats: Where the workers of each model go; None = where Ray puts them.
    """
    environments = [public_runtime_env(reward.runtime_env) for reward in rewards]
    options = [
        role.options() | ({"runtime_env": environment} if environment else {})
        for role, environment in zip(roles, environments, strict=True)
    ]
    limits = [reward_limits(reward) for reward in rewards]
    return RayScorer(rewards, options, limits, unseen, run=run, seats=seats)


def _score_clips(pool: ElasticPool, clips: Sequence[Clip]) -> Future[list[Result]]:
    batch = ray.put(list(clips))
    reply = pool.submit(lambda worker: [worker.score_clips.remote(batch)])

    def one_by_one(error: Exception) -> Future[list[Result]]:
        if not isinstance(error, WorkLostError):
            raise error
        if len(clips) == 1:
            return completed(lambda: [f"{clips[0].id}: {error}"])
        singles = gathered([_score_clips(pool, [clip]) for clip in clips])
        return mapped(singles, lambda lists: [result for (result,) in lists])

    return recovered(mapped(reply, lambda answer: answer.value), one_by_one)


def _creator(
    reward: RewardConfig,
    options: dict[str, Any],
    load: Callable[[RewardConfig], RewardModel],
    unseen: Callable[[Video], Mapping[str, float]] | None,
    run: str,
    seats: Seats,
) -> Callable[[int], ActorHandle]:
    # A thread for each request that it is given; their networks take turns.
    threads = {"max_concurrency": 1 + reward.prefetch, "concurrency_groups": {ENCODING: _ENCODERS}}
    options = {**options, **threads}

    def create(number: int) -> ActorHandle:
        names = named(options | seats.options(number), run, f"{reward.key}-{number}")
        return start_actor(RewardWorker, names, reward, load, unseen)

    return create
