"""Learning from the reward's own gradient, through videos that the learner samples by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from videorl.config import SamplingConfig
from videorl.embedding import Embedding
from videorl.evaluation.unseen import UnseenMetrics
from videorl.learning.passes import Pass
from videorl.learning.share import ALONE, Plan, Ranks, Update, open_share
from videorl.objectives.objective import LOSS, NOT_FINITE, RewardObjective
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
    prompt_embeds: Embedding
    negative_prompt_embeds: Embedding
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
    """Implements `videorl.learning.method.Method`: one video per prompt and step.

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

    def items(
        self,
        step: int,
        examples: Sequence[PromptExample],
        ranks: Ranks = ALONE,
        num_updates: int = 1,
    ) -> tuple[list[Update[Chain]], int]:
        """Draw seed and stop of each video of a rank; return how many of all are left out too.

        Left out are those whose embeddings are not finite.
        """
        num_steps = self._sampling.num_inference_steps
        first = self._objective.first_stop(num_steps)
        seeds = [derive_seed(self._seed, "refl", example.prompt.index) for example in examples]
        stops = [stop_step(derive_seed(seed, "stop"), first, num_steps) for seed in seeds]
        longest = max(stops) + 1 - self._objective.gradient_steps

        def opened(positions: Sequence[int]) -> list[tuple[int, Embedding, Embedding]]:
            chosen = [examples[position] for position in positions]
            handles = [example.prompt_embeds for example in chosen]
            handles += [example.negative_prompt_embeds for example in chosen]
            embeds = self._fetch(handles)
            return list(zip(positions, embeds[: len(chosen)], embeds[len(chosen) :], strict=True))

        def is_finite(found: tuple[int, Embedding, Embedding]) -> bool:
            return all(embedding.is_finite for embedding in found[1:])

        plan = Plan(1, ranks, num_updates)
        share = open_share(len(examples), plan, opened, is_finite)
        if share is None:
            return [], len(examples)
        chains = [
            Chain(
                examples[number].prompt.text,
                embeds,
                negative,
                seeds[number],
                stops[number],
                longest,
                1 / share.num_usable,
            )
            for number, embeds, negative in share.examples
        ]
        return share.filled(chains), len(examples) - share.num_usable

    def shortened(self, chains: Sequence[Chain]) -> list[Chain]:
        """Return chains that stop as early as they can: after one step without gradient."""
        stop = self._objective.gradient_steps
        return [replace(chain, stop=stop, longest=1) for chain in chains]

    def passes(self, chains: Sequence[Chain]) -> list[Pass]:
        """Return the only pass of one micro-batch."""
        return [partial(self._loss, chains)]

    def _loss(self, chains: Sequence[Chain]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one micro-batch, and weighted sums of what it measured.

        A video whose latents, pixels or reward are not finite has no part in them, nor in the
        gradient, and is counted.
        """
        latents_BCTHW, is_usable_B = self._sample(chains)
        if latents_BCTHW.requires_grad:
            # Where a reward is not finite, so is its gradient, even of a loss that leaves it out.
            latents_BCTHW.register_hook(lambda grad: _where(is_usable_B, grad))
        prompts = [chain.prompt for chain in chains]
        if self._objective.checkpoint_decode and len(chains) > 1:
            singles = zip(latents_BCTHW.split(1), prompts, strict=True)
            judged = [
                checkpoint(self._judge, latents, [text], use_reentrant=False)
                for latents, text in singles
            ]
        else:
            judged = [self._judge(latents_BCTHW, prompts)]
        total_B = torch.cat([total for total, _, _ in judged])
        is_usable_B &= total_B.detach().isfinite().to(is_usable_B.device)
        share_B = torch.tensor([chain.weight for chain in chains], device=total_B.device)
        weight_B = _where(is_usable_B, share_B)
        num_lost = ((share_B > 0) & (weight_B == 0)).sum()
        total_B = _where(is_usable_B, total_B)
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
        sums = {
            name: (_where(is_usable_B, value) * weight_B).sum() for name, value in measured.items()
        }
        sums[NOT_FINITE] = num_lost.to(weight_B)
        return (loss_B * weight_B).sum(), sums

    def _sample(self, chains: Sequence[Chain]) -> tuple[Tensor, Tensor]:
        """Return the clean latents [B, C, T, H, W], with gradient through the last calls.

        Return too which are finite [B]; in the place of the others are some that are.
        """
        num_grad = self._objective.gradient_steps
        embeds = [chain.prompt_embeds for chain in chains]
        firsts = [chain.stop + 1 - num_grad for chain in chains]
        x_t_BCTHW, times_S = self._policy.sample_partly(
            embeds,
            [chain.negative_prompt_embeds for chain in chains],
            [chain.seed for chain in chains],
            firsts,
            chains[0].longest,
        )
        times_BG = torch.stack([times_S[first : first + num_grad] for first in firsts])

        def predicted(is_usable_B: Tensor) -> Tensor:
            return predict_clean(
                self._policy.process,
                lambda x_t, t_B: self._policy.predict(x_t, t_B, embeds, "policy"),
                _where(is_usable_B, x_t_BCTHW),
                times_BG.to(x_t_BCTHW.device),
            )

        is_usable_B = _is_finite(x_t_BCTHW)
        latents_BCTHW = predicted(is_usable_B)
        is_usable_B &= _is_finite(latents_BCTHW)
        if _on_any_rank(not bool(_is_finite(latents_BCTHW).all()), latents_BCTHW.device):
            # NaN inside a network spoils every gradient that passes it, so it must not get there.
            latents_BCTHW = predicted(is_usable_B)
        return latents_BCTHW, is_usable_B

    def _judge(
        self, latents_BCTHW: Tensor, prompts: Sequence[str]
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Decode and score; return totals [B] with gradient, dimensions [B] and pixels without."""
        in_pieces, tile_px = self._objective.checkpoint_decode, self._objective.decode_tile_px
        pixels_BF3HW = self._policy.pixels(latents_BCTHW, in_pieces=in_pieces, tile_px=tile_px)
        return *self._reward(pixels_BF3HW, self._sampling.fps, prompts), pixels_BF3HW.detach()


def _is_finite(values: Tensor) -> Tensor:
    """Return for each row whether all its values are finite, [B]."""
    return values.detach().flatten(1).isfinite().all(1)


def _where(is_usable_B: Tensor, values: Tensor) -> Tensor:
    """Return the values with zeros in rows that cannot be used."""
    return torch.where(is_usable_B.to(values.device).view(-1, *[1] * (values.ndim - 1)), values, 0)


def _on_any_rank(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set on any rank: all must call a sharded model as often."""
    if not torch.distributed.is_initialized():
        return flag
    flags = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(flags)
    return bool(flags)
