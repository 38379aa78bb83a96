"""Memory and work of a learner that follows the reward's own gradient (ReFL).

The policy's calls and the decoding are counted on the code that runs; rewards are estimated from
their published sizes. docs/planning.md has the formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, replace

import torch

from videorl.config import Recipe
from videorl.objectives.objective import RewardObjective
from videorl.objectives.refl import predict_clean
from videorl.planning.cards import Card
from videorl.planning.counting import Counted, count_halves, make_fake, without_numbers
from videorl.planning.linear import from_few
from videorl.planning.memory import PolicyCounts
from videorl.planning.rates import FLOAT32
from videorl.planning.rewards import rewards_with_gradient
from videorl.planning.shadow import Shadow, batch_of, latent_shape, picture_shape
from videorl.policies import load_family
from videorl.policies.decoding import HOST
from videorl.policies.family import pixel_frames
from videorl.policies.video_codec import VideoCodec

_SHORT = (3, 5)
"""Latent frames of the two clips from which decoding is counted: one piece of CogVideoX or three of
Wan, and one or two more."""
_NOWHERE = torch.device("meta")
"""Stands for host memory, as the CPU stands for the GPU."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """Decoding a video with gradient."""

    left: float
    """Bytes that wait for the backward pass on the GPU: pixels, mostly."""
    needs: Counted
    """Forward and backward."""


@dataclass(frozen=True, slots=True)
class Chain:
    """What a learner rank of ReFL holds and does, per video."""

    left: float
    """Bytes that the policy's calls with gradient leave for the backward pass."""
    calls: Counted
    """Those calls, forward and backward."""
    step: Counted
    """A step of the sampler, without gradient."""
    num_steps: float
    """Steps without gradient: those of the chain that goes farthest of its round."""
    decoding: Decoding
    reward: Counted
    weights: float
    """Bytes of the VAE and of all reward models."""
    pixel_bytes: float
    in_pieces: bool
    """Videos are decoded and judged one by one."""
    decodes_in_float32: bool
    num_roles: int = 1

    @property
    def takes_one(self) -> bool:
        """Whether more videos at once are slower: each is then decoded once more."""
        return self.in_pieces

    def activations(self, num_videos: int) -> float:
        """Return the most that so many videos at once hold beside the weights."""
        return max(self.parts(num_videos).values())

    def limit(self, num_videos: int) -> str:
        """Return what takes the most memory."""
        parts = self.parts(num_videos)
        return max(parts, key=lambda name: parts[name])

    def parts(self, num_videos: int) -> dict[str, float]:
        """Return what is held at most while each part computes, in bytes."""
        at_once = 1 if self.in_pieces else num_videos
        waiting = self.left * num_videos + self.pixel_bytes * (num_videos - at_once)
        decoding = self.decoding
        return {
            "the policy": max(self.calls.num_bytes, self.step.num_bytes) * num_videos,
            "decoding": waiting + decoding.needs.num_bytes * at_once,
            "the reward": waiting + (decoding.left + self.reward.num_bytes) * at_once,
        }

    def host_bytes(self, num_videos: int) -> float:
        """Return what waits in host memory."""
        return self.decoding.needs.host_bytes * (1 if self.in_pieces else num_videos)

    def seconds(self, card: Card, num_videos: int) -> dict[str, float]:
        """Return the seconds of one video by what they are for."""
        slower = FLOAT32 if self.decodes_in_float32 else 1.0
        # Forward, forward again and backward, which is two; several at once go forward once more.
        again = 1.25 if self.in_pieces and num_videos > 1 else 1.0
        return {
            "sampling": card.seconds(self.num_steps * self.step.flops, "sampling"),
            "the policy": card.seconds(self.calls.flops, "learning"),
            "decoding": card.seconds(slower * again * self.decoding.needs.flops, "decoding"),
            "the reward": card.seconds(again * self.reward.flops, "scoring"),
        }


def count_chain(
    counts: PolicyCounts,
    objective: RewardObjective,
    checkpointing: bool,
    like: Chain | None = None,
) -> Chain:
    """Count a recipe's chain for one video.

    Args:
        counts: Of its policy.
        objective: What is decoded how, and what carries gradient.
        checkpointing: Compute the policy's activations again in the backward pass.
        like: The same counted with the other checkpointing: only the policy's calls differ.
    """
    at = from_few(counts.blocks, lambda blocks: _calls(counts, objective, blocks, checkpointing))
    left, *needs = at(counts.blocks)
    calls = Counted(*needs)
    if like is not None:
        return replace(like, left=left, calls=calls)
    recipe = counts.recipe
    weights, reward = rewards_with_gradient(recipe)
    return Chain(
        left=left,
        calls=calls,
        step=counts.denoise(1),
        num_steps=expected_steps(recipe, objective),
        decoding=_decoding(counts, objective),
        reward=reward,
        weights=counts.vae_bytes + weights,
        pixel_bytes=4.0 * 3 * recipe.video_pixels,
        in_pieces=objective.checkpoint_decode,
        decodes_in_float32=counts.vae_dtype.itemsize == 4,
    )


def expected_steps(recipe: Recipe, objective: RewardObjective) -> float:
    """Return the mean number of steps without gradient of a round.

    All chains of a round go as far as the longest, whose stop is the largest of `per_round` draws.
    """
    num_steps = recipe.sampling.num_inference_steps
    first, draws = objective.first_stop(num_steps), recipe.prompts.per_round
    places = num_steps - first
    beyond = sum(1 - (k / places) ** draws for k in range(1, places))
    return first + beyond + 1 - objective.gradient_steps


def _calls(
    counts: PolicyCounts,
    objective: RewardObjective,
    blocks: Mapping[str, int],
    checkpointing: bool,
) -> tuple[float, ...]:
    """Return what the calls with gradient leave behind, and what they need with their backward."""
    recipe = counts.recipe
    shadow = counts.shadow(blocks, trainable=True, checkpointing=checkpointing)
    with without_numbers():
        module = shadow.module("policy")
        make_fake([module])
        for parameter in module.parameters():
            if parameter.requires_grad:  # gradients are counted by themselves
                parameter.grad = torch.zeros_like(parameter)
        batch = batch_of(shadow, recipe, latent_shape(recipe, counts.configs), 1, 1)
        times_BG = torch.ones(1, objective.gradient_steps)

        def forward() -> Callable[[], object]:
            latents = predict_clean(
                shadow.policy.process,
                lambda x_t, t_B: shadow.policy.predict(x_t, t_B, batch.prompt_embeds, "policy"),
                batch.x_t_NRCTHW[:, 0],
                times_BG,
            )
            return lambda: latents.sum().backward()

        left, needs = count_halves(forward)
        return left, *astuple(needs)


def _decoding(counts: PolicyCounts, objective: RewardObjective) -> Decoding:
    """Count two short clips of at most two tiles a side; the rest lies on the line through them."""
    recipe, side = counts.recipe, objective.decode_tile_px
    _, frames, *size = picture_shape(recipe, counts.configs)
    shadow = counts.vae_shadow()
    tile = side // shadow.pipeline.vae_scale_factor_spatial
    small = [min(length, 2 * (tile - tile // 4)) if tile else length for length in size]
    short = _SHORT if frames >= _SHORT[1] else (frames, frames)
    (left, one), (more, two) = (_decoded(counts, shadow, objective, n, small) for n in short)
    # What grows with the frames grows with the pixels too; a piece is that of one tile.
    pixels = size[0] * size[1] / (small[0] * small[1])
    tiles = _covered(size, tile) / _covered(small, tile)
    per_frame = 1 / max(1, short[1] - short[0])
    grows = per_frame * (two.num_bytes - one.num_bytes)
    waits = per_frame * (more - left)
    rest = frames - short[0]
    whole = one.towards(two, per_frame * rest)
    needs = Counted(
        one.num_bytes + grows * (frames * pixels - short[0]),
        whole.flops * tiles,
        whole.host_bytes * tiles,
    )
    return Decoding((left - short[0] * waits) + waits * frames * pixels, needs)


def _decoded(
    counts: PolicyCounts, shadow: Shadow, objective: RewardObjective, frames: int, size: list[int]
) -> tuple[float, Counted]:
    recipe, pipeline = counts.recipe, shadow.pipeline
    channels, *_ = picture_shape(recipe, counts.configs)
    family = load_family(recipe.policy.family)
    num_frames = pixel_frames(family, counts.configs.parts["vae"], frames)
    sampling = replace(recipe.sampling, num_frames=num_frames)
    host = _NOWHERE if counts.on_gpu else HOST
    codec = VideoCodec(family, pipeline, sampling, host)
    with without_numbers():
        make_fake([pipeline.vae])
        x0 = torch.zeros(1, channels, frames, *size, requires_grad=True)
        in_pieces, tile_px = objective.checkpoint_decode, objective.decode_tile_px

        def forward() -> Callable[[], object]:
            pixels = codec.pixels(x0, in_pieces=in_pieces, tile_px=tile_px)
            return lambda: pixels.square().sum().backward()

        return count_halves(forward)


def _covered(size: list[int], tile: int) -> float:
    """Return the latents per frame that tiles decode, those that they share counted anew."""
    if not tile or max(size) <= tile:
        return float(size[0] * size[1])
    height, width = (
        sum(min(tile, length - at) for at in range(0, length, tile - tile // 4)) for length in size
    )
    return float(height * width)
