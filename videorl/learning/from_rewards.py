"""One rank of the learner that follows the reward's own gradient: ReFL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from videorl.config import Recipe
from videorl.evaluation.unseen import unseen_metrics
from videorl.learning.engines import Engine
from videorl.learning.learner import LearnerBase
from videorl.objectives.refl import predict_clean, refl_loss, stop_step
from videorl.policies.video_codec import as_videos
from videorl.protocols import DifferentiablePolicy
from videorl.rewards.differentiable import CombinedReward
from videorl.run.checkpoints import CheckpointFolder
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
    weight: float


class ReFLLearner(LearnerBase[DifferentiablePolicy, PromptExample]):
    """Implements `videorl.protocols.Learner` on this rank; all ranks make the same calls.

    A step samples one video per prompt with the live policy: `learner.micro_batch_size` at a time.

    Args:
        policy: The trainable policy, with its VAE.
        reward: What is maximised.
        engine: Optimizer over `policy.trainable_module()`.
        recipe: The run.
        checkpoints: Where to save; shared by all ranks.
        fetch: Opens media handles; the identity where media are passed by value.
    """

    def __init__(
        self,
        policy: DifferentiablePolicy,
        reward: CombinedReward,
        engine: Engine,
        recipe: Recipe,
        checkpoints: CheckpointFolder,
        fetch: Callable[[list[Media]], list[Any]] = list,
    ) -> None:
        super().__init__(policy, engine, recipe, checkpoints, fetch, "refl/videos")
        self._reward = reward
        self._fps = recipe.sampling.fps

    def _update(self, step: int, examples: Sequence[PromptExample]) -> dict[str, float]:
        chains = self._chains(examples)
        # The same on all ranks, as a sharded model must be called equally often.
        longest = max(one.stop for one in chains) + 1 - self._recipe.refl.gradient_steps
        return self._optimize(step, chains, lambda some: self._loss(some, longest))

    def _chains(self, examples: Sequence[PromptExample]) -> list[Chain]:
        handles = [one.prompt_embeds for one in examples]
        handles += [one.negative_prompt_embeds for one in examples]
        opened = self._fetch(handles)
        num_steps = self._recipe.sampling.num_inference_steps
        first = self._recipe.refl.first_stop(num_steps)
        chains: list[Chain] = []
        for number, one in enumerate(examples):
            seed = derive_seed(self._recipe.seed, "refl", one.prompt.index)
            chains.append(
                Chain(
                    one.prompt.text,
                    opened[number],
                    opened[number + len(examples)],
                    seed,
                    stop_step(derive_seed(seed, "stop"), first, num_steps),
                    1 / len(examples),
                )
            )
        return chains

    def _loss(self, chains: Sequence[Chain], longest: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one micro-batch, and weighted sums of what it measured."""
        latents_BCTHW = self._sample(chains, longest)
        prompts = [one.prompt for one in chains]
        if self._recipe.refl.checkpoint_decode:
            singles = zip(latents_BCTHW.split(1), prompts, strict=True)
            judged = [
                checkpoint(self._judge, one, [text], use_reentrant=False) for one, text in singles
            ]
        else:
            judged = [self._judge(latents_BCTHW, prompts)]
        total_B = torch.cat([total for total, _, _ in judged])
        weight_B = torch.tensor([one.weight for one in chains], device=total_B.device)
        loss_B = refl_loss(total_B, self._recipe.refl.enough)
        measured = {"refl/loss": loss_B.detach(), "reward/total": total_B.detach()}
        for name in judged[0][1]:
            measured[f"reward/{name}"] = torch.cat([scores[name] for _, scores, _ in judged])
        videos = [one for _, _, pixels in judged for one in as_videos(pixels, self._fps)]
        unseen = [unseen_metrics(one) for one in videos]
        for name in unseen[0]:
            measured[f"unseen/{name}"] = total_B.new_tensor([one[name] for one in unseen])
        sums = {name: (value * weight_B).sum() for name, value in measured.items()}
        return (loss_B * weight_B).sum(), sums

    def _sample(self, chains: Sequence[Chain], longest: int) -> Tensor:
        """Return the clean latents [B, C, T, H, W], with gradient through the last calls."""
        num_grad = self._recipe.refl.gradient_steps
        embeds = [one.prompt_embeds_LD for one in chains]
        firsts = [one.stop + 1 - num_grad for one in chains]
        x_t_BCTHW, times_S = self._policy.sample_partly(
            embeds,
            [one.negative_prompt_embeds_LD for one in chains],
            [one.seed for one in chains],
            firsts,
            longest,
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
        return *self._reward(pixels_BF3HW, self._fps, prompts), pixels_BF3HW.detach()
