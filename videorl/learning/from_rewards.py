"""Learning from the reward's own gradient, through videos that the learner samples by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from videorl.config import SamplingConfig
from videorl.evaluation.unseen import UnseenMetrics
from videorl.learning.passes import Pass
from videorl.objectives.objective import LOSS, RewardObjective
from videorl.objectives.refl import predict_clean, stop_step
from videorl.policies.video_codec import as_videos
from videorl.protocols import DifferentiablePolicy
from videorl.rewards.differentiable import CombinedReward
from videorl.seeds import derive_seed
from videorl.types import Media, PromptExample


@dataclass(frozen=True, slots=True)
class Chain:
    """One video to be sampled; `weight` is its share of the step's loss, 0 = padding."""

    prompt: str
    prompt_embeds_LD: Tensor
    negative_prompt_embeds_LD: Tensor
    seed: int
    stop: int
    """The sampler's step at which the clean latents are predicted."""
    longest: int
    """Steps without gradient of the longest chain: all ranks call a sharded model as often."""
    weight: float

    @property
    def num_videos(self) -> int:
        """The one video."""
        return 1


class FromRewards:
    """Implements `videorl.learning.learner.Method`: one video per prompt and step.

    Args:
        policy: Of the learner, with its VAE.
        objective: Where chains stop, and the loss.
        reward: What is maximised.
        sampling: Steps and frames per second of the videos.
        seed: Of noise and stops.
        unseen: Measures the videos, to be logged.
        fetch: Opens media handles; the identity where media are passed by value.
    """

    def __init__(
        self,
        policy: DifferentiablePolicy,
        objective: RewardObjective,
        reward: CombinedReward,
        sampling: SamplingConfig,
        seed: int,
        unseen: UnseenMetrics,
        fetch: Callable[[list[Media]], list[Any]] = list,
    ) -> None:
        self._policy = policy
        self._objective = objective
        self._reward = reward
        self._sampling = sampling
        self._seed = seed
        self._unseen = unseen
        self._fetch = fetch
        self.reference_is_policy = False

    def items(self, step: int, examples: Sequence[PromptExample]) -> list[Chain]:
        """Draw seed and stop of each prompt's video."""
        handles = [example.prompt_embeds for example in examples]
        handles += [example.negative_prompt_embeds for example in examples]
        opened = self._fetch(handles)
        num_steps = self._sampling.num_inference_steps
        first = self._objective.first_stop(num_steps)
        seeds = [derive_seed(self._seed, "refl", example.prompt.index) for example in examples]
        stops = [stop_step(derive_seed(seed, "stop"), first, num_steps) for seed in seeds]
        longest = max(stops) + 1 - self._objective.gradient_steps
        return [
            Chain(
                example.prompt.text,
                opened[number],
                opened[number + len(examples)],
                seeds[number],
                stops[number],
                longest,
                1 / len(examples),
            )
            for number, example in enumerate(examples)
        ]

    def passes(self, chains: Sequence[Chain]) -> list[Pass]:
        """Return the only pass of one micro-batch."""
        return [partial(self._loss, chains)]

    def _loss(self, chains: Sequence[Chain]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one micro-batch, and weighted sums of what it measured."""
        latents_BCTHW = self._sample(chains)
        prompts = [chain.prompt for chain in chains]
        if self._objective.checkpoint_decode:
            singles = zip(latents_BCTHW.split(1), prompts, strict=True)
            judged = [
                checkpoint(self._judge, latents, [text], use_reentrant=False)
                for latents, text in singles
            ]
        else:
            judged = [self._judge(latents_BCTHW, prompts)]
        total_B = torch.cat([total for total, _, _ in judged])
        weight_B = torch.tensor([chain.weight for chain in chains], device=total_B.device)
        loss_B = self._objective(total_B)
        measured = {LOSS: loss_B.detach(), "reward/total": total_B.detach()}
        for name in judged[0][1]:
            measured[f"reward/{name}"] = torch.cat([scores[name] for _, scores, _ in judged])
        videos = [
            video for _, _, pixels in judged for video in as_videos(pixels, self._sampling.fps)
        ]
        unseen = [self._unseen(video) for video in videos]
        for name in unseen[0]:
            measured[f"unseen/{name}"] = total_B.new_tensor([metrics[name] for metrics in unseen])
        sums = {name: (value * weight_B).sum() for name, value in measured.items()}
        return (loss_B * weight_B).sum(), sums

    def _sample(self, chains: Sequence[Chain]) -> Tensor:
        """Return the clean latents [B, C, T, H, W], with gradient through the last calls."""
        num_grad = self._objective.gradient_steps
        embeds = [chain.prompt_embeds_LD for chain in chains]
        firsts = [chain.stop + 1 - num_grad for chain in chains]
        x_t_BCTHW, times_S = self._policy.sample_partly(
            embeds,
            [chain.negative_prompt_embeds_LD for chain in chains],
            [chain.seed for chain in chains],
            firsts,
            chains[0].longest,
        )
        times_BG = torch.stack([times_S[first : first + num_grad] for first in firsts])
        return predict_clean(
            self._policy.process,
            lambda x_t, t_B: self._policy.predict(x_t, t_B, embeds, "policy"),
            x_t_BCTHW,
            times_BG.to(x_t_BCTHW.device),
        )

    def _judge(
        self, latents_BCTHW: Tensor, prompts: Sequence[str]
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Decode and score; return totals [B] with gradient, dimensions [B] and pixels without."""
        pixels_BF3HW = self._policy.pixels(latents_BCTHW)
        return *self._reward(pixels_BF3HW, self._sampling.fps, prompts), pixels_BF3HW.detach()
