"""What LTX-2 models refuse: settings and checkpoints that would give other videos, or none."""

from __future__ import annotations

import math
from typing import Any

from videorl.config import SamplingConfig
from videorl.errors import CheckpointError, ConfigError
from videorl.policies.ltx_2_sound import Shape


def check_sound(pipeline: Any, shape: Shape, sampling: SamplingConfig) -> None:
    """Refuse a video without any sound, and a sound that the transformer cannot read.

    Raises:
        ConfigError: The video is too short for any sound, which the transformer needs.
        CheckpointError: Transformer and VAE of the sound do not fit each other.
    """
    if shape.sound_tokens < 1:
        raise ConfigError(
            "sampling.num_frames must be more at this sampling.fps for this model, whose video "
            f"has a sound: it would have no token, got {sampling.num_frames} frames at "
            f"{sampling.fps:g} per second"
        )
    config, vae = pipeline.transformer.config, pipeline.audio_vae
    bins = vae.config.mel_bins // vae.mel_compression_ratio
    if bins * vae.config.latent_channels != config.audio_in_channels:
        raise CheckpointError(
            f"policy.path: the transformer reads {config.audio_in_channels} numbers for a "
            f"token of sound, but its audio_vae makes {vae.config.latent_channels} × {bins}: "
            "they are of different models"
        )


def check_guidance(transformer: Any, num_blocks: int, sampling: SamplingConfig) -> None:
    """Refuse guidance by blocks that the transformer does not have, or would not leave out.

    Raises:
        ConfigError: See above.
    """
    if sampling.stg_scale > 0 and not transformer.config.perturbed_attn:
        raise ConfigError(
            "sampling.stg_scale must be 0 for this checkpoint: its transformer "
            "(perturbed_attn=false) attends in all blocks, so that a forward would be made in "
            f"vain, got {sampling.stg_scale:g}"
        )
    if transformer.device.type == "meta":  # of a plan, which has some of the blocks
        return
    if away := [block for block in sampling.stg_blocks if not 0 <= block < num_blocks]:
        raise ConfigError(
            f"sampling.stg_blocks must be some of 0 ... {num_blocks - 1} for this transformer, "
            f"got {away[0]}"
        )


def check_registers(config: Any, sampling: SamplingConfig) -> None:
    """Refuse texts whose padding the connectors' registers cannot fill.

    Raises:
        ConfigError: `sampling.max_sequence_length` is no multiple of their number.
        CheckpointError: The connectors have no registers.
    """
    numbers = [
        getattr(config, f"{half}_connector_num_learnable_registers") for half in ("video", "audio")
    ]
    if None in numbers:
        raise CheckpointError(
            "policy.path: its connectors have no learnable registers, unlike those of LTX-2 and "
            "LTX-2.3: padding would have to be masked, which is not supported"
        )
    step = math.lcm(*numbers)
    if sampling.max_sequence_length % step:
        raise ConfigError(
            f"sampling.max_sequence_length must be a multiple of {step} for this model, whose "
            f"connectors fill the padding with so many registers, got "
            f"{sampling.max_sequence_length}"
        )
