"""A policy with a few of its blocks and without numbers, to count what its code needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from videorl.config import Recipe
from videorl.errors import ConfigError
from videorl.learning.items import Batch
from videorl.planning.models import Configs
from videorl.policies import load_family
from videorl.policies.checkpoints import PARTS, components
from videorl.policies.family import latent_size, pipeline_kind
from videorl.policies.full import train_everything
from videorl.policies.images import example
from videorl.policies.layouts import problem_of_index
from videorl.policies.lora import train_adapters
from videorl.policies.pipeline_policy import PipelinePolicy
from videorl.policies.precision import float32_linears, prepare_for_autocast
from videorl.policies.stock_pipeline import set_strides
from videorl.policies.trained import TrainedWeights
from videorl.protocols import Role

LARGE = 500_000_000
"""Parameters from which gradient checkpointing is on where the recipe leaves it open."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Shadow:
    """A policy of a few blocks, whose parameters may be fake; and what its modules are."""

    policy: PipelinePolicy
    trained: TrainedWeights | None
    pipeline: Any
    dtype: torch.dtype

    def module(self, role: Role) -> torch.nn.Module:
        """Return the transformer of a role."""
        assert self.trained is not None
        with self.trained.using(role) as module:
            return module


def compute_dtype(recipe: Recipe, on_gpu: bool) -> torch.dtype:
    """Return the type that the policy computes in; `auto` as on such a device."""
    name = recipe.policy.dtype
    return _DTYPES.get(name) or (torch.bfloat16 if on_gpu else torch.float32)


def build_shadow(
    recipe: Recipe,
    configs: Configs,
    parts: frozenset[str],
    *,
    dtype: torch.dtype,
    blocks: Mapping[str, int] | None = None,
    trainable: bool = False,
    checkpointing: bool = False,
) -> Shadow:
    """Build parts of a policy on the meta device, as `load_policy` builds them on a real one.

    Args:
        recipe: Its `policy` and `sampling`.
        configs: Of the checkpoint.
        parts: Some of `transformer` and `vae`.
        dtype: Compute type.
        blocks: Of the transformer, by the keys of the family's `num_blocks`; None = all.
        trainable: With float32 masters and the reference, as the learner has them.
        checkpointing: Compute activations again in the backward pass.

    Raises:
        ConfigError: The checkpoint is of another family, or the video size does not fit it.
    """
    family = load_family(recipe.policy.family)
    wanted = pipeline_kind(family)
    if problem := problem_of_index(recipe.policy.path, configs.index, wanted):
        raise ConfigError(f"policy.path: {problem}")
    loaded: dict[str, Any] = dict.fromkeys(("tokenizer", *components(configs.index, PARTS)))
    trained, autocast = None, trainable and dtype != torch.float32
    with torch.device("meta"):
        if "vae" in parts:
            vae = family.model_classes["vae"].from_config(dict(configs.parts["vae"]))
            loaded["vae"] = _cast(vae, family.vae_dtype or dtype).requires_grad_(False)
        if "transformer" in parts:
            whole = configs.parts["transformer"]
            sizes = family.shortened(whole, blocks or family.num_blocks(whole))
            transformer = family.model_classes["transformer"].from_config(sizes)
            loaded["transformer"] = _cast(transformer, dtype)
            linears = float32_linears(transformer)
            if checkpointing:
                transformer.enable_gradient_checkpointing()
            trained = _trained(recipe, transformer, trainable)
            if not trainable and recipe.policy.lora.rank:
                for parameter in trained.policy.values():  # as peft has them on real devices
                    parameter.data = parameter.data.to(dtype)
            if autocast:
                prepare_for_autocast(trained, linears, "cpu")
    loaded["scheduler"] = _scheduler(configs)
    options = family.pipeline_options(Path(recipe.policy.path), configs.index)
    pipeline = family.pipeline_class(**loaded, **options)
    set_strides(pipeline, *family.strides(configs.parts["vae"]))
    if "transformer" in parts:
        family.check_size(pipeline, recipe.sampling)
        family.prepare(pipeline, recipe.sampling)
    is_lora = recipe.policy.lora.rank > 0
    policy = PipelinePolicy(
        family,
        pipeline,
        trained,
        recipe.sampling,
        dtype=dtype,
        is_lora=is_lora,
        autocast=autocast,
    )
    return Shadow(policy, trained, pipeline, dtype)


def latent_shape(recipe: Recipe, configs: Configs) -> tuple[int, int, int, int]:
    """Return [C, T, H, W] of the latents of one video, its sound included if it has one."""
    family = load_family(recipe.policy.family)
    channels, frames, rows, columns = picture_shape(recipe, configs)
    size = (frames, rows, columns)
    added = family.added_frames(configs.parts["transformer"], size, recipe.sampling)
    return channels, frames + added, rows, columns


def picture_shape(recipe: Recipe, configs: Configs) -> tuple[int, int, int, int]:
    """Return [C, T, H, W] of the latents that the VAE decodes to a video."""
    family, transformer = load_family(recipe.policy.family), configs.parts["transformer"]
    frames, rows, columns = latent_size(family, configs.parts["vae"], recipe.sampling)
    patch = transformer.get("patch_size_t") or 1
    frames = -(-frames // patch) * patch  # CogVideoX 1.5 pads
    return family.latent_channels(transformer), frames, rows, columns


def batch_of(
    shadow: Shadow, recipe: Recipe, shape: tuple[int, ...], roles: int, items: int
) -> Batch:
    """Return a batch without numbers: `items` items of `roles` videos with latents of `shape`."""
    latents = torch.zeros(items, roles, *shape)
    ones = torch.ones(items)
    family = load_family(recipe.policy.family)
    embedding = example(family, shadow.pipeline, recipe.sampling)
    return Batch(
        x_t_NRCTHW=latents,
        target_NRCTHW=torch.zeros_like(latents),
        clean_NRCTHW=torch.zeros_like(latents),
        noise_NRCTHW=torch.zeros_like(latents),
        t_N=ones,
        prompt_embeds=[embedding] * items,
        weight_N=ones,
        example_weight_N=ones,
    )


def _trained(recipe: Recipe, transformer: Any, trainable: bool) -> TrainedWeights:
    config = recipe.policy
    if config.lora.rank == 0:
        return train_everything(transformer, trainable=trainable)
    # What a trained adapter holds does not matter here, only its size.
    return train_adapters(
        transformer, replace(config.lora, initial=None), seed=0, trainable=trainable
    )


def _cast(model: Any, dtype: torch.dtype) -> Any:
    """Give a model the types that `from_pretrained(dtype=...)` gives it."""
    kept = tuple(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, parameter in model.named_parameters():
        if not any(part in name.split(".") for part in kept):
            parameter.data = parameter.data.to(dtype)
    return model


def _scheduler(configs: Configs) -> Any:
    import diffusers

    kind = getattr(diffusers, configs.index["scheduler"][1], None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        name = configs.index["scheduler"][1]
        raise ConfigError(f"{configs.source}: {name!r} is not one of diffusers' schedulers")
    settings: Mapping[str, Any] = configs.scheduler
    return kind.from_config(dict(settings))  # pyright: ignore[reportAttributeAccessIssue]
