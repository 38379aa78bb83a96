"""Memory and work of the learner, a generator and the encoder; docs/planning.md has the formulas.

Every count is linear in the number of blocks of each kind, so a few small models give that of the
whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from videorl.config import Recipe
from videorl.errors import ConfigError
from videorl.learning.passes import make_passes
from videorl.objectives.objective import LossInputs
from videorl.planning.counting import Counted, count, held, make_fake, without_numbers
from videorl.planning.linear import from_few
from videorl.planning.models import Configs
from videorl.planning.shadow import (
    LARGE,
    Shadow,
    batch_of,
    build_shadow,
    compute_dtype,
    latent_shape,
)
from videorl.planning.sizes import Memory, Sizes, weights_of
from videorl.planning.vae import count_decoding, count_picture
from videorl.policies import load_family
from videorl.policies.checkpoints import models
from videorl.policies.family import Family, is_guided
from videorl.policies.parallel import num_tokens
from videorl.protocols import Role

_BUCKET = 5e8
"""Numbers in DeepSpeed's buffer for gradients (`reduce_bucket_size`), from stage 1 on."""
_LIVE = 1e9
"""Numbers that ZeRO-3 gathers at one time, at the most (`stage3_max_live_parameters`)."""


def has_checkpointing(recipe: Recipe, num_parameters: float) -> bool:
    """Tell whether activations are computed again; where the recipe leaves it open, by size."""
    asked: Any = recipe.policy.gradient_checkpointing
    family: Any = load_family(recipe.policy.family)
    limit: float = getattr(family, "checkpointed_above", LARGE)
    return asked if isinstance(asked, bool) else num_parameters > limit


@dataclass(frozen=True)
class PolicyCounts:
    """Counts for one recipe and one type of device.

    Args:
        recipe: Its policy, sampling and objective.
        configs: Of its checkpoint.
        frozen_roles: Whose predictions the objective looks at beside the policy's.
        on_gpu: Where it runs; decides what `policy.dtype=auto` is.
    """

    recipe: Recipe
    configs: Configs
    frozen_roles: frozenset[Role] = frozenset({"reference"})
    on_gpu: bool = True

    @cached_property
    def sizes(self) -> Sizes:
        """The learner's sizes."""
        one = self.of_one_transformer
        config, names = self.recipe.policy, self.transformers
        number = len(self._family.trained_transformers(names, config))
        others = len(names) - number  # held to sample, as the published model
        frozen = number * one.frozen_bytes + others * self._base_bytes
        # What is trained whole does not wait; of frozen weights all but those that compute do.
        waiting = (frozen - one.frozen_bytes) * one.share_in_blocks
        away = self._family.offloads_transformers(config) * waiting
        return replace(
            one,
            frozen_bytes=frozen - away,
            trained=number * one.trained,
            reference_bytes=number * one.reference_bytes,
            num_transformers=number,
            away_bytes=away,
        )

    @cached_property
    def of_one_transformer(self) -> Sizes:
        """The learner's sizes if it trained one transformer alone."""
        at = from_few(self.blocks, self._sizes)
        none = dict.fromkeys(self.blocks, 0)
        single = max(at({**none, kind: 1})[2] for kind in self.blocks)
        whole, without = at(self.blocks), at(none)
        place = 0 if whole[0] else 3  # in bytes, or of numbers where nothing is frozen
        in_blocks = 1 - without[place] / whole[place]
        return Sizes(*whole, one_block_bytes=single, share_in_blocks=in_blocks)

    @property
    def _base_bytes(self) -> float:
        """Bytes of a transformer that only samples."""
        one = self.of_one_transformer
        return one.frozen_bytes or one.transformer * self.dtype.itemsize

    @cached_property
    def transformers(self) -> list[str]:
        """The names of the checkpoint's transformers, which must be alike."""
        names = models(self.configs.index, {"transformer"})
        first, *others = ({**self.configs.parts[name], "_name_or_path": ""} for name in names)
        if any(each != first for each in others):
            raise ConfigError(
                f"{self.configs.source}: {' and '.join(names)} are not alike, but only alike ones "
                "can be planned"
            )
        return names

    def learner(self, checkpointing: bool) -> Counted:
        """Return activations and work of one video in the learner: reference, policy, backward.

        Several at once need as many times as much.
        """
        whole = self._whole(lambda blocks: self._learner(blocks, checkpointing))
        return self._shared_by(self.recipe.learner.context_parallel, whole)

    def memory(self, activations: float, num_ranks: int) -> Memory:
        """Return the learner's memory on one of `num_ranks` ranks."""
        sizes, stage = self.sizes, self.recipe.learner.zero_stage
        share = [1.0 if stage < at else 1 / num_ranks for at in range(4)]
        trained_bytes = 4 * sizes.trained
        all_bytes = sizes.frozen_bytes + trained_bytes
        # ZeRO 1 and 2 update a float32 copy of their share; 3 has no other.
        copy = trained_bytes * share[1] if stage in (1, 2) else 0.0
        numbers = sizes.num_transformers * sizes.transformer + sizes.trained
        live = min(all_bytes, _LIVE * all_bytes / numbers)
        buffers = 0.0 if not stage else (4 * _BUCKET if self.on_gpu else 0.0)
        policy = self.recipe.policy
        copies = 1 if policy.lora.rank else len(self.frozen_roles | {"reference"})
        is_away = policy.frozen_device == "cpu" and not policy.lora.rank
        frozen = copies * sizes.reference_bytes * (1.0 if is_away else share[3])
        return Memory(
            weights=all_bytes * share[3],
            reference=sizes.one_block_bytes if is_away else frozen,
            host=(frozen if is_away else 0.0) + sizes.away_bytes,
            gradients=trained_bytes * share[2],
            optimizer=2 * trained_bytes * share[1] + copy,
            buffers=buffers + (live if stage == 3 and num_ranks > 1 else 0.0),
            # AdamW's temporaries are as large as what it updates, when activations are gone; when
            # DeepSpeed starts, it brings to the GPU what waits in host memory.
            activations=max(activations, trained_bytes * share[1], sizes.away_bytes),
        )

    def generator(self, num_videos: int) -> Memory:
        """Return a generator's memory.

        Args:
            num_videos: Candidates that are denoised at once.
        """
        itemsize, one = self.dtype.itemsize, self.of_one_transformer
        number, policy = len(self.transformers), self.recipe.policy
        trained = number * one.trained * itemsize if policy.lora.rank else 0.0
        base = self._base_bytes
        away = self._family.offloads_transformers(policy) * (number - 1) * base
        away *= one.share_in_blocks
        degree = self.recipe.generators.context_parallel
        step = self._shared_by(degree, self.denoise(num_videos), num_videos * self.guided)
        peak = max(step.num_bytes, self.decoding.num_bytes)
        weights = number * base - away + trained + self.vae_bytes
        return Memory(weights=weights, activations=peak, host=away)

    def denoise(self, num_videos: int) -> Counted:
        """Return what a step of the sampler needs for so many videos, without gradient."""
        if num_videos not in self._steps:
            count_at_once = num_videos * self.guided
            self._steps[num_videos] = self._whole(
                lambda blocks: self._forward(blocks, count_at_once)
            )
        return self._steps[num_videos]

    @cached_property
    def _steps(self) -> dict[int, Counted]:
        return {}

    @property
    def without_adapters(self) -> Counted:
        """One forward of a video where adapters are merged into the weights, or where none are."""
        policy = self.recipe.policy
        merged = replace(policy, lora=replace(policy.lora, rank=0))
        plain = replace(self, recipe=replace(self.recipe, policy=merged))
        return self._whole(lambda blocks: plain._forward(blocks, 1))

    @cached_property
    def vae_bytes(self) -> float:
        """Bytes of the VAE."""
        vae = self.vae_shadow().pipeline.vae
        return held([*vae.parameters(), *vae.buffers()])

    @property
    def guided(self) -> int:
        """Videos that are computed for one, at once, in a step of the sampler."""
        return 2 if is_guided(self._family, self.recipe.sampling) else 1

    @property
    def forwards(self) -> int:
        """Forwards of a step of the sampler for one video."""
        return self._family.forwards_per_step(self.recipe.sampling)

    def _shared_by(self, degree: int, whole: Counted, num_videos: int = 1) -> Counted:
        """Return what each of `degree` processes needs that share the videos that `whole` counts.

        The hidden states that go into the first block are whole in each. In a ring, so are the keys
        and values of the block at hand.
        """
        if degree == 1:
            return whole
        transformer = self.configs.parts["transformer"]
        _, frames, height, width = latent_shape(self.recipe, self.configs)
        tokens = num_tokens(transformer, (frames, height, width))
        inner = transformer["num_attention_heads"] * transformer["attention_head_dim"]
        tensors = 3 if self.recipe.policy.context_parallel == "ring" else 1
        kept = tensors * num_videos * tokens * inner * self.dtype.itemsize * (1 - 1 / degree)
        return Counted(whole.num_bytes / degree + kept, whole.flops / degree)

    @property
    def num_roles(self) -> int:
        """Videos of one example."""
        return 2 if self.recipe.objective.learns_from == "pairs" else 1

    @property
    def vae_dtype(self) -> torch.dtype:
        """The type that decoding computes in."""
        return self._family.vae_dtype or self.dtype

    @property
    def dtype(self) -> torch.dtype:
        """The compute type of the transformer."""
        return compute_dtype(self.recipe, self.on_gpu)

    @cached_property
    def blocks(self) -> dict[str, int]:
        """Blocks of the whole transformer, of each kind."""
        return self._family.num_blocks(self.configs.parts["transformer"])

    @property
    def _family(self) -> Family:
        return load_family(self.recipe.policy.family)

    def _whole(self, measure: Callable[[Mapping[str, int]], Counted]) -> Counted:
        """Return of all blocks what can be counted of a few."""
        at = from_few(self.blocks, lambda blocks: astuple(measure(blocks)))
        return Counted(*at(self.blocks))

    def _sizes(self, blocks: Mapping[str, int]) -> tuple[float, ...]:
        return weights_of(self.shadow(blocks, trainable=True), self.recipe)

    def shadow(self, blocks: Mapping[str, int], **options: Any) -> Shadow:
        """Return the policy with so many blocks, in its compute type."""
        parts = frozenset({"transformer"})
        return build_shadow(
            self.recipe, self.configs, parts, dtype=self.dtype, blocks=blocks, **options
        )

    def _learner(self, blocks: Mapping[str, int], checkpointing: bool) -> Counted:
        shadow = self.shadow(blocks, trainable=True, checkpointing=checkpointing)
        with without_numbers():
            modules = [shadow.module("policy"), shadow.module("reference")]
            make_fake(modules)
            for parameter in modules[0].parameters():
                if parameter.requires_grad:  # gradients are counted by themselves
                    parameter.grad = torch.zeros_like(parameter)
            batch = batch_of(shadow, self.recipe, latent_shape(self.recipe, self.configs), 1, 1)
            (run,) = make_passes(shadow.policy, batch, sorted(self.frozen_roles), _loss, 1)
            return count(lambda: run()[0].backward())

    def _forward(self, blocks: Mapping[str, int], num_videos: int) -> Counted:
        shadow = self.shadow(blocks)
        with without_numbers(), torch.no_grad():
            make_fake([shadow.module("policy")])
            shape = latent_shape(self.recipe, self.configs)
            batch = batch_of(shadow, self.recipe, shape, 1, num_videos)
            return count(
                lambda: shadow.policy.predict(
                    batch.x_t_NRCTHW[:, 0], batch.t_N, batch.prompt_embeds, "policy"
                )
            )

    def vae_shadow(self) -> Shadow:
        """Return the policy with its VAE alone."""
        return build_shadow(self.recipe, self.configs, frozenset({"vae"}), dtype=self.dtype)

    @cached_property
    def picture(self) -> Counted:
        """Encoding the picture of a prompt with the VAE, for families that take pictures."""
        pipeline = self.shadow(dict.fromkeys(self.blocks, 1)).pipeline
        return count_picture(self.recipe, self.configs, self.vae_shadow(), pipeline)

    @cached_property
    def decoding(self) -> Counted:
        """Decoding one video without gradient, in tiles where the recipe says so."""
        return count_decoding(self.recipe, self.configs, self.vae_shadow())


def _loss(inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
    """Stand for any objective: these work on a few numbers per video."""
    return torch.stack([error.sum() for error in inputs.errors.values()]).sum(), {}
