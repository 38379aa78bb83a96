"""The deployments that compute: each replica holds a policy, or a reward model."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray import serve

from actors.processes.worker_process import hide_gpus, prepare_process
from actors.reward import load_reward
from videorl.config import RewardConfig, SamplingConfig
from videorl.errors import CheckpointError, ConfigError
from videorl.recipes.secrets import private_variables
from videorl.serving.errors import Failure
from videorl.serving.limits import ServingLimits
from videorl.serving.policy import Served, ServedPolicy
from videorl.serving.requests import VideoTask
from videorl.serving.scorer import UploadScorer
from videorl.serving.turn import Turn
from videorl.serving.uploads import UploadDecoder
from videorl.types import Score

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

_keeping_the_last: Any = serve.multiplexed(max_num_models_per_replica=8)


class VideoReplica:
    """Samples videos, one batch at a time."""

    def __init__(self, served: Served, num_cpus: float, limits: ServingLimits) -> None:
        prepare_process(num_cpus)
        self._policy = ServedPolicy(served)
        self._turn = Turn(limits.work_s)

    async def fit(self, sampling: SamplingConfig, exactly: bool) -> SamplingConfig | Failure:
        """See `videorl.serving.engine.Engine.fit`; answered while a video is sampled."""
        return self._policy.fit(sampling, exactly=exactly)

    @_keeping_the_last
    async def adapter(self, name: str) -> Mapping[str, Tensor]:
        """Return the tensors of an adapter; Serve keeps those used last, and routes by them."""
        return await asyncio.to_thread(self._policy.read, name)

    async def sample(self, tasks: Sequence[VideoTask]) -> list[bytes | Failure]:
        """See `videorl.serving.engine.Engine.sample`."""
        name = serve.get_multiplexed_model_id()
        try:
            weights = await self.adapter(name)
        except (CheckpointError, ConfigError) as error:
            logger.error("adapter %s: %s", name, error)
            reason = f"the adapter {name} can no longer be loaded; the log of the server has more"
            return [Failure(reason, "adapter_unavailable", 503)] * len(tasks)
        async with self._turn:
            return await asyncio.to_thread(self._policy.sample, tasks, weights)

    def check_health(self) -> None:
        """See that nothing is stuck: Serve replaces a replica that does not answer, or raises."""
        self._turn.check()


class RewardReplica:
    """Scores uploads with one model, a batch at a time, and decodes the next meanwhile."""

    def __init__(self, config: RewardConfig, limits: ServingLimits) -> None:
        os.environ.update(private_variables(config.runtime_env))
        hide_gpus()
        model = load_reward(config)
        if "torch" in sys.modules:
            prepare_process(config.num_cpus)
        self._decoder = UploadDecoder(limits)
        self._decoder.start()
        self._scorer = UploadScorer(model, self._decoder)
        self._turn = Turn(limits.work_s)

    async def score(self, uploads: Sequence[tuple[bytes, str]]) -> list[Score | Failure]:
        """See `videorl.serving.engine.Engine.score`."""
        contents, prompts = [content for content, _ in uploads], [text for _, text in uploads]
        videos = await asyncio.to_thread(self._scorer.decoded, contents)
        async with self._turn:
            return await asyncio.to_thread(self._scorer.score, videos, prompts)

    def check_health(self) -> None:
        """See that nothing is stuck, as in `VideoReplica`."""
        self._turn.check()

    def __del__(self) -> None:
        if hasattr(self, "_decoder"):
            self._decoder.close()
