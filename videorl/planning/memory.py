"""Memory and work of the learner, a generator and the encoder; docs/planning.md has the formulas.

Every count is linear in the number of blocks, so two small models give that of the whole one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from videorl.config import Recipe
from videorl.learning.passes import make_passes
from videorl.objectives.objective import LossInputs
from videorl.planning.cards import GIB
from videorl.planning.counting import Counted, count, held, make_fake, without_numbers
from videorl.planning.models import Configs
from videorl.planning.shadow import LARGE, batch_of, build_shadow, compute_dtype, latent_shape
from videorl.policies import load_family
from videorl.protocols import Role

_BUCKET = 5e8
"""Numbers in DeepSpeed's buffer for gradients (`reduce_bucket_size`), from stage 1 on."""
_LIVE = 1e9
"""Numbers that ZeRO-3 gathers at one time, at the most (`stage3_max_live_parameters`)."""
_BLOCKS = (2, 3)
"""Blocks of the two small models; with one block alone the peak may lie elsewhere."""
_SHORT = (5, 7)
"""Latent frames of the two short videos from which a VAE is counted; both families decode them in
pieces, whose number the count is linear in."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process on its GPU, by what they are for."""

    weights: float
    reference: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    buffers: float = 0.0
    """Of DeepSpeed: gradients on their way, and gathered weights."""
    activations: float = 0.0
    """The most that is held beside the above."""

    @property
    def peak(self) -> float:
        """All of it."""
        held_always = self.weights + self.reference + self.gradients + self.optimizer
        return held_always + self.buffers + self.activations

    @property
    def peak_gib(self) -> float:
        """All of it, in GiB."""
        return self.peak / GIB


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers and bytes of a policy, without its activations."""

    frozen_bytes: float
    """Weights that are not trained."""
    trained: float
    """Numbers that are trained."""
    reference_bytes: float
    transformer: float
    """Parameters of the transformer, without adapters."""


def has_checkpointing(recipe: Recipe, num_parameters: float) -> bool:
    """Tell whether activations are computed again; where the recipe leaves it open, by size."""
    asked: Any = recipe.policy.gradient_checkpointing
    return asked if isinstance(asked, bool) else num_parameters > LARGE


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

    def sizes(self) -> Sizes:
        """Return the learner's sizes."""
        one, two = (self._sizes(layers) for layers in _BLOCKS)
        steps = self._num_layers - _BLOCKS[0]
        return Sizes(*(a + steps * (b - a) for a, b in zip(one, two, strict=True)))

    def learner(self, checkpointing: bool) -> Counted:
        """Return activations and work of one video in the learner: reference, policy, backward.

        Several at once need as many times as much.
        """
        one, two = (self._learner(layers, checkpointing) for layers in _BLOCKS)
        return one.towards(two, self._num_layers - _BLOCKS[0])

    def memory(self, activations: float, num_ranks: int) -> Memory:
        """Return the learner's memory on one of `num_ranks` ranks."""
        sizes, stage = self.sizes(), self.recipe.learner.zero_stage
        share = [1.0 if stage < at else 1 / num_ranks for at in range(4)]
        trained_bytes = 4 * sizes.trained
        all_bytes = sizes.frozen_bytes + trained_bytes
        # ZeRO 1 and 2 update a float32 copy of their share; 3 has no other.
        copy = trained_bytes * share[1] if stage in (1, 2) else 0.0
        live = min(all_bytes, _LIVE * all_bytes / (sizes.transformer + sizes.trained))
        buffers = 0.0 if not stage else (4 * _BUCKET if self.on_gpu else 0.0)
        return Memory(
            weights=all_bytes * share[3],
            reference=sizes.reference_bytes,
            gradients=trained_bytes * share[2],
            optimizer=2 * trained_bytes * share[1] + copy,
            buffers=buffers + (live if stage == 3 and num_ranks > 1 else 0.0),
            # AdamW's temporaries are as large as what it updates, when activations are gone.
            activations=max(activations, trained_bytes * share[1]),
        )

    def generator(self, num_videos: int) -> tuple[Memory, Counted, Counted, float]:
        """Return a generator's memory, the work of a step and of decoding, the VAE's bytes.

        Args:
            num_videos: Candidates that are denoised at once.
        """
        guided = 2 if self.recipe.sampling.guidance_scale > 1 else 1
        one, two = (self._forward(layers, num_videos * guided) for layers in _BLOCKS)
        step = one.towards(two, self._num_layers - _BLOCKS[0])
        decode, vae_bytes = self._decode()
        sizes = self.sizes()
        itemsize = self._dtype.itemsize
        trained = sizes.trained * itemsize if self.recipe.policy.lora.rank else 0.0
        base = sizes.frozen_bytes or sizes.transformer * itemsize
        peak = max(step.num_bytes, decode.num_bytes)
        return Memory(weights=base + trained + vae_bytes, activations=peak), step, decode, vae_bytes

    def encoder(self) -> tuple[Memory, Counted]:
        """Return the text encoder's memory, and its work for one prompt."""
        layers = self.configs.parts["text_encoder"]["num_layers"]
        (one, size), (two, larger) = (self._encode(count) for count in (1, 2))
        size += (layers - 1) * (larger - size)
        # Without gradient a block's activations are gone before the next one's.
        counted = Counted(one.num_bytes, one.towards(two, layers - 1).flops)
        return Memory(weights=size, activations=counted.num_bytes), counted

    @property
    def num_roles(self) -> int:
        """Videos of one example."""
        return 2 if self.recipe.objective.learns_from == "pairs" else 1

    @property
    def vae_dtype(self) -> torch.dtype:
        """The type that decoding computes in."""
        return load_family(self.recipe.policy.family).vae_dtype or self._dtype

    @property
    def _dtype(self) -> torch.dtype:
        return compute_dtype(self.recipe, self.on_gpu)

    @property
    def _num_layers(self) -> int:
        return self.configs.parts["transformer"]["num_layers"]

    def _sizes(self, layers: int) -> tuple[float, ...]:
        shadow = self._shadow(layers, trainable=True)
        assert shadow.trained is not None
        trained = list(shadow.trained.policy.values())
        reference = list(shadow.trained.reference.values())
        module = shadow.module("policy")
        others = {id(each) for each in (*trained, *reference)}
        frozen = [each for each in module.parameters() if id(each) not in others]
        reference_bytes = held([*reference, *_frozen_copy(shadow, self.recipe)])
        transformer = sum(each.numel() for each in frozen) or sum(p.numel() for p in trained)
        return held(frozen), sum(p.numel() for p in trained), reference_bytes, transformer

    def _shadow(self, layers: int, **options: Any) -> Any:
        parts = frozenset({"transformer"})
        return build_shadow(
            self.recipe, self.configs, parts, dtype=self._dtype, num_layers=layers, **options
        )

    def _learner(self, layers: int, checkpointing: bool) -> Counted:
        shadow = self._shadow(layers, trainable=True, checkpointing=checkpointing)
        with without_numbers():
            modules = [shadow.module("policy"), shadow.module("reference")]
            make_fake(modules)
            for parameter in modules[0].parameters():
                if parameter.requires_grad:  # gradients are counted by themselves
                    parameter.grad = torch.zeros_like(parameter)
            batch = batch_of(shadow, self.recipe, latent_shape(self.recipe, self.configs), 1, 1)
            (run,) = make_passes(shadow.policy, batch, sorted(self.frozen_roles), _loss, 1)
            return count(lambda: run()[0].backward())

    def _forward(self, layers: int, num_videos: int) -> Counted:
        shadow = self._shadow(layers)
        with without_numbers(), torch.no_grad():
            make_fake([shadow.module("policy")])
            shape = latent_shape(self.recipe, self.configs)
            batch = batch_of(shadow, self.recipe, shape, 1, num_videos)
            return count(
                lambda: shadow.policy.predict(
                    batch.x_t_NRCTHW[:, 0], batch.t_N, batch.prompt_embeds, "policy"
                )
            )

    def _decode(self) -> tuple[Counted, float]:
        """Return the work of decoding one video, and the bytes of the VAE."""
        channels, frames, height, width = latent_shape(self.recipe, self.configs)
        shadow = build_shadow(self.recipe, self.configs, frozenset({"vae"}), dtype=self._dtype)
        vae, family = shadow.pipeline.vae, load_family(self.recipe.policy.family)
        lengths = [frames] if frames <= _SHORT[1] else list(_SHORT)
        found: list[Counted] = []
        with without_numbers(), torch.no_grad():
            make_fake([vae])
            for length in lengths:
                x0 = torch.zeros(1, channels, length, height, width, dtype=vae.dtype)
                x0 = x0.transpose(1, 2) if family.frames_first else x0
                pixels = (length - 1) * shadow.pipeline.vae_scale_factor_temporal + 1
                found.append(count(_decoder(family, shadow.pipeline, x0, pixels)))
        whole = found[0]
        if len(found) == 2:
            whole = found[0].towards(found[1], (frames - _SHORT[0]) / (_SHORT[1] - _SHORT[0]))
        return whole, held([*vae.parameters(), *vae.buffers()])

    def _encode(self, layers: int) -> tuple[Counted, float]:
        kind = load_family(self.recipe.policy.family).model_classes["text_encoder"]
        config = kind.config_class.from_dict(
            {**self.configs.parts["text_encoder"], "num_layers": layers}
        )
        with torch.device("meta"):
            model = kind(config).to(self._dtype)
        size = held(model.parameters())
        with without_numbers(), torch.no_grad():
            make_fake([model])
            tokens = torch.zeros(1, self.recipe.sampling.max_sequence_length, dtype=torch.long)
            mask = torch.ones_like(tokens)
            return count(lambda: model(input_ids=tokens, attention_mask=mask)), size


def _decoder(family: Any, pipeline: Any, x0: Tensor, num_frames: int) -> Callable[[], object]:
    return lambda: family.decode(pipeline, x0, num_frames)


def _frozen_copy(shadow: Any, recipe: Recipe) -> list[Tensor]:
    """Return buffers of the frozen copy where all weights are trained; none with adapters."""
    return [] if recipe.policy.lora.rank else list(shadow.module("reference").buffers())


def _loss(inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
    """Stand for any objective: these work on a few numbers per video."""
    return torch.stack([error.sum() for error in inputs.errors.values()]).sum(), {}
