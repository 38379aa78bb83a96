"""Memory and work of a VAE, counted on short videos: it is linear in the pieces of a long one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from videorl.config import Recipe
from videorl.planning.counting import Counted, count, make_fake, without_numbers
from videorl.planning.models import Configs
from videorl.planning.shadow import Shadow, picture_shape
from videorl.policies import load_family
from videorl.policies.family import pixel_frames
from videorl.policies.video_codec import tile_large_frames

_SHORT = (5, 7)
"""Latent frames of the two short videos; families decode them in pieces, whose number the count is
linear in. Of longer pieces a family says its own `vae_lengths`."""


def count_picture(recipe: Recipe, configs: Configs, shadow: Shadow, pipeline: Any) -> Counted:
    """Count the encoding of a prompt's picture, which may be the first frame of a whole video.

    Args:
        recipe: Its family and sampling.
        configs: Of the checkpoint.
        shadow: With its VAE.
        pipeline: With its transformer.
    """
    family, sampling = load_family(recipe.policy.family), recipe.sampling
    frames = family.example_image(pipeline, sampling)["image_latents"].shape[1]

    def encoding(length: int) -> Callable[[], object]:
        num_frames = pixel_frames(family, configs.parts["vae"], length)
        shape = (1, 3, num_frames, sampling.height, sampling.width)
        pixels = torch.zeros(*shape, dtype=shadow.pipeline.vae.dtype)
        return lambda: family.encode(shadow.pipeline, pixels)

    return _counted(shadow, encoding, frames, _SHORT)


def count_decoding(recipe: Recipe, configs: Configs, shadow: Shadow) -> Counted:
    """Count the decoding of a video, in tiles where the recipe says so; see `count_picture`."""
    family, vae = load_family(recipe.policy.family), shadow.pipeline.vae
    channels, frames, height, width = picture_shape(recipe, configs)
    tile_large_frames(vae, recipe.sampling)

    def decoding(length: int) -> Callable[[], object]:
        x0: Tensor = torch.zeros(1, channels, length, height, width, dtype=vae.dtype)
        num_frames = pixel_frames(family, configs.parts["vae"], length)
        return lambda: family.decode(shadow.pipeline, x0, num_frames)

    return _counted(shadow, decoding, frames, getattr(family, "vae_lengths", _SHORT))


def _counted(
    shadow: Shadow,
    work: Callable[[int], Callable[[], object]],
    frames: int,
    short: Sequence[int],
) -> Counted:
    """Return the count of the work on so many latent frames, from those of two short videos."""
    lengths = [frames] if frames <= short[1] else list(short)
    with without_numbers(), torch.no_grad():
        make_fake([shadow.pipeline.vae])
        found = [count(work(length)) for length in lengths]
    if len(found) == 1:
        return found[0]
    return found[0].towards(found[1], (frames - short[0]) / (short[1] - short[0]))
