"""A policy that samples for requests of different sizes, with different adapters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from videorl.config import Recipe, SamplingConfig
from videorl.errors import CheckpointError, ConfigError, PromptError, VideoError
from videorl.policies.checkpoints import PARTS
from videorl.recipes.policy_problems import sampling_problems
from videorl.sampling.embeddings import EmbeddingCache
from videorl.seeds import derive_seed
from videorl.serving.errors import Failure
from videorl.serving.requests import BASE, VideoTask

if TYPE_CHECKING:
    from torch import Tensor

    from videorl.embedding import Embedding
    from videorl.policies.pipeline_policy import PipelinePolicy

_FRAMES_APART = 32
"""How far the nearest number of frames that a model makes may be."""


@dataclass(frozen=True)
class Served:
    """What a replica loads."""

    recipe: Recipe
    adapters: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name -> folder of a trained adapter."""
    digests: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name -> `digest_of_adapter` when the server started; others may change while it runs."""
    latent_reward: str = ""
    """Folder of what `extra_params.guide` guides by; empty = nothing."""


def digest_of_adapter(folder: str) -> str:
    """Return SHA-256 of the file of a run's adapter.

    Raises:
        CheckpointError: It is not there.
    """
    from videorl.policies.adapter_files import FILES

    path = Path(folder, FILES["transformer"])
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error


class ServedPolicy:
    """Samples what `videorl sample` would, request by request."""

    def __init__(self, served: Served) -> None:
        from videorl.guidance.latent_reward import load_latent_reward
        from videorl.policies import load_policy
        from videorl.policies.pipeline_policy import PipelinePolicy

        recipe = served.recipe
        self._served, self._reward = served, None
        if served.latent_reward:
            folder = Path(served.latent_reward)
            self._reward = load_latent_reward(folder, recipe.policy, recipe.sampling)
        policy = load_policy(recipe.policy, recipe.sampling, parts=PARTS, seed=recipe.seed)
        assert isinstance(policy, PipelinePolicy)
        self._policy: PipelinePolicy = policy
        self._fresh = policy.weights()
        self._live: str | None = BASE
        self._embeds = EmbeddingCache(lambda text: policy.encode([text])[0], capacity=256)

    def fit(self, sampling: SamplingConfig, *, exactly: bool) -> SamplingConfig | Failure:
        """See `videorl.serving.engine.Engine.fit`."""
        problem = self._problem(sampling)
        if problem is None or exactly:
            return problem or sampling
        for distance in range(1, _FRAMES_APART + 1):
            for frames in (sampling.num_frames + distance, sampling.num_frames - distance):
                near = replace(sampling, num_frames=frames)
                if frames > 0 and self._problem(near) is None:
                    return near
        return problem

    def _problem(self, sampling: SamplingConfig) -> Failure | None:
        try:
            for problem in filter(None, sampling_problems(sampling)):
                raise ConfigError(problem)
            self._policy.check_sampling(sampling)
        except ConfigError as error:
            return Failure(str(error).replace("sampling.", ""), "not_for_this_model")
        return None

    def read(self, name: str) -> Mapping[str, Tensor]:
        """Return the tensors of an adapter, from its folder.

        Raises:
            CheckpointError, ConfigError: It does not fit the policy, or is not what it was when
                the server started: requests of one name must get one model.
        """
        if name == BASE:
            return self._fresh
        source = self._served.adapters[name]
        if (pinned := self._served.digests.get(name)) and digest_of_adapter(source) != pinned:
            raise CheckpointError(f"{source} has changed since the server started: start it anew")
        lora = replace(self._served.recipe.policy.lora, initial=source)
        return self._policy.read_adapter(lora, self._fresh)

    def sample(
        self, tasks: Sequence[VideoTask], adapter: Mapping[str, Tensor]
    ) -> list[bytes | Failure]:
        """Return the mp4 of each task.

        Args:
            tasks: All of one group.
            adapter: The tensors of theirs, as `read` returns them.
        """
        import torch

        if tasks[0].adapter != self._live:
            self._live = None  # whatever of it is loaded, should this fail
            self._policy.load_weights(adapter)
            self._live = tasks[0].adapter
        results: list[bytes | Failure] = [Failure("", "")] * len(tasks)
        encoded: dict[int, Embedding] = {}
        with torch.no_grad():
            try:
                self._policy.resample(tasks[0].sampling)
                negative = self._embeds[tasks[0].sampling.negative_prompt]
            except (PromptError, ConfigError) as error:
                return [Failure(f"negative_prompt: {error}", "unusable")] * len(tasks)
            for index, task in enumerate(tasks):
                try:
                    encoded[index] = self._embeds[task.prompt]
                except PromptError as error:
                    results[index] = Failure(str(error), "prompt_unusable")
            for index, result in self._videos(tasks, encoded, negative).items():
                results[index] = result
        return results

    def _videos(
        self, tasks: Sequence[VideoTask], encoded: Mapping[int, Embedding], negative: Embedding
    ) -> dict[int, bytes | Failure]:
        import torch

        if not encoded:
            return {}
        asked = [tasks[index] for index in encoded]
        try:
            latents_BCTHW = self._latents(asked, [*encoded.values()], negative)
            each = zip(encoded, latents_BCTHW.split(1), strict=True)
            return {index: self._mp4(latents_1CTHW) for index, latents_1CTHW in each}
        except ConfigError as error:
            return dict.fromkeys(encoded, Failure(str(error), "not_for_this_model"))
        except torch.OutOfMemoryError:
            latents_BCTHW = None
            torch.cuda.empty_cache()
        if len(encoded) > 1:  # each may fit where all together did not
            alone = (self._videos(tasks, {index: encoded[index]}, negative) for index in encoded)
            return {index: result for found in alone for index, result in found.items()}
        reason = "the GPU's memory does not hold this video: ask for a smaller or shorter one"
        return dict.fromkeys(encoded, Failure(reason, "video_too_large"))

    def _latents(
        self, tasks: Sequence[VideoTask], embeds: Sequence[Embedding], negative: Embedding
    ) -> Tensor:
        from videorl.guidance.flow_nrg import MAX_FACTOR
        from videorl.guidance.sampler import GuidedSampler

        seeds = [derive_seed(task.seed, "sample", task.prompt, 0) for task in tasks]
        if len(tasks) > 1:
            return self._policy.sample_each(embeds, [negative] * len(tasks), seeds)
        sampler, (task,) = self._policy, tasks
        if task.guide:
            assert self._reward is not None, "requests are checked"
            limit = task.max_factor or MAX_FACTOR
            sampler = GuidedSampler(self._policy, self._reward, task.guide, max_factor=limit)
        return sampler.sample(embeds[0], negative, seeds)

    def _mp4(self, latents_1CTHW: Tensor) -> bytes | Failure:
        from videorl.data.video_io import encode_mp4

        try:
            (video,) = self._policy.decode(latents_1CTHW)
        except VideoError as error:
            return Failure(str(error), "video_undecodable")
        return encode_mp4(video)
