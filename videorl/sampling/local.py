"""Generator and scorer in this process: for tests, small runs and debugging.

Both do their work inside `submit` and return a completed future.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from torch import Tensor

from videorl.config import RewardConfig
from videorl.embedding import Embedding
from videorl.futures import completed
from videorl.policies.compiling import num_failures
from videorl.protocols import Policy, RewardModel
from videorl.rewards.diversity import measured
from videorl.rewards.scoring import (
    check_dimension_weights,
    check_rewards,
    checked_scores,
    nothing_to_score,
    score_group,
)
from videorl.sampling.embeddings import EmbeddingCache
from videorl.sampling.sampler import CandidateSampler, candidate_group, unusable
from videorl.types import (
    CandidateGroup,
    Condition,
    SampleRequest,
    ScoredGroup,
    Video,
    WeightVersion,
)


class LocalGenerator:
    """A policy that samples in this process.

    Args:
        policy: A policy with transformer, VAE and text encoder.
        negative_prompt: Text that guidance steers away from.
        weights: Version -> its published tensors by name.
    """

    def __init__(
        self,
        policy: Policy,
        negative_prompt: str,
        weights: Callable[[WeightVersion], Mapping[str, Tensor]],
    ) -> None:
        self._sampler = CandidateSampler(policy)
        self._embeddings = EmbeddingCache(lambda prompt: policy.encode([prompt])[0])
        self._negative_prompt = negative_prompt
        self._weights = weights
        self._networks, self._num_uncompiled = policy.networks(), 0

    def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
        """Sample, and return a completed future."""
        return completed(lambda: self._sample(request))

    def embeds(self, prompt: Condition) -> tuple[Embedding, Embedding]:
        """Return the embeddings of a prompt and of the negative prompt."""
        return self._embeddings[prompt], self._embeddings[self._negative_prompt]

    def latents(self, request: SampleRequest) -> Tensor:
        """Return only the latents [B, C, T, H, W] of a request."""
        return self._loaded(request).latents(request, *self.embeds(request.prompt.condition))

    def num_uncompiled(self) -> int:
        """Return how many requests so far were sampled after compilation had failed."""
        return self._num_uncompiled

    def _sample(self, request: SampleRequest) -> CandidateGroup:
        sampler = self._loaded(request)
        embeds = self.embeds(request.prompt.condition)
        latents, videos, _ = sampler.sample(request, *embeds)
        self._num_uncompiled += num_failures(self._networks) > 0
        assert sampler.version is not None
        lost = unusable(videos)
        return candidate_group(request, sampler.version, embeds[0], latents, videos, lost)

    def _loaded(self, request: SampleRequest) -> CandidateSampler:
        if request.version != self._sampler.version:
            self._sampler.load(request.version, self._weights(request.version))
        return self._sampler


class LocalScorer:
    """Reward models that score in this process.

    Args:
        models: Reward models by `RewardConfig.key`.
        rewards: Their configurations, which say how scores are combined.
        unseen: Video -> quality metrics that no reward uses.
    """

    def __init__(
        self,
        models: Mapping[str, RewardModel],
        rewards: Sequence[RewardConfig],
        unseen: Callable[[Video], Mapping[str, float]],
    ) -> None:
        check_rewards(rewards)
        for reward in rewards:
            check_dimension_weights(reward, models[reward.key].dimensions)
        self._models = models
        self._rewards = rewards
        self._unseen = unseen

    def submit(self, group: CandidateGroup) -> Future[ScoredGroup]:
        """Score, and return a completed future."""
        return completed(lambda: self._score(group))

    def _score(self, group: CandidateGroup) -> ScoredGroup:
        if not group.candidates:
            return nothing_to_score(group)
        videos: list[Video] = [candidate.video for candidate in group.candidates]
        prompts = [group.prompt.text] * len(videos)
        results = {
            reward.key: checked_scores(self._models[reward.key], videos, prompts)
            for reward in self._rewards
        }
        return score_group(group, results, self._rewards, measured(self._unseen, videos))
