"""The models that can be aligned: a file per diffusers family, and its line in `FAMILIES`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from videorl.config import PolicyConfig, SamplingConfig
from videorl.errors import ConfigError
from videorl.policies.checkpoints import PARTS

if TYPE_CHECKING:
    import torch

    from videorl.policies.family import Family
    from videorl.protocols import DifferentiablePolicy


def _wan() -> Family:
    from videorl.policies.wan import Wan

    return Wan()


def _cogvideox() -> Family:
    from videorl.policies.cogvideox import CogVideoX

    return CogVideoX()


FAMILIES = {"wan": _wan, "cogvideox": _cogvideox}
"""Family name -> function that imports it: diffusers is heavy, and imported only when used."""


def load_policy(
    config: PolicyConfig,
    sampling: SamplingConfig,
    *,
    parts: frozenset[str],
    device: torch.device | None = None,
    seed: int = 0,
    trainable: bool = False,
    keep_base: bool = False,
) -> DifferentiablePolicy:
    """Load a policy, reading only the parts that this process needs.

    Args:
        config: Which model to load, and which of its weights are trained.
        sampling: How candidates are sampled.
        parts: Some of `transformer`, `vae`, `text_encoder`. A learner needs the first, a generator
            the first two, an encoder the last.
        device: Where to load the parts; None = the GPU if there is one.
        seed: Seed of new adapters; every process of a run must use the same.
        trainable: Hold trained weights in float32 with gradients, and a reference beside them.
        keep_base: Make the role `base` available, which full fine-tuning pays for with one more
            copy of the transformer. With adapters it always is, at no cost.

    Raises:
        ConfigError: The family, a part or a setting is unknown, or does not fit the model.
        CheckpointError: The checkpoint is missing, incomplete or of another kind.
    """
    if config.family not in FAMILIES:
        raise ConfigError(
            f"policy.family: unknown family {config.family!r}; known are {', '.join(FAMILIES)}"
        )
    if not parts or parts - PARTS:
        raise ConfigError(f"parts must be some of {sorted(PARTS)}, got {sorted(parts)}")
    if trainable and "transformer" not in parts:
        raise ConfigError("a trainable policy needs its transformer among the parts")
    from videorl.policies.loading import Wanted, load_pipeline_policy

    wanted = Wanted(parts, device, seed, trainable, keep_base)
    return load_pipeline_policy(FAMILIES[config.family](), config, sampling, wanted)
