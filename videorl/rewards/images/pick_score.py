"""PickScore (arXiv 2305.01569): a CLIP-H trained on the preferences of Pick-a-Pic."""

from __future__ import annotations

from functools import partial
from typing import Any

from videorl.rewards.checkpoints import (
    empty_parameters,
    find_folder,
    load_strictly,
    read_tensors,
)
from videorl.rewards.images.clip_pixels import float_pixels, pil_pixels, transformers_crop
from videorl.rewards.images.clip_preference import (
    BASE_FILES,
    CLIP_H,
    ClipPreference,
    ClipPrompts,
    read_config,
    read_tokenizer,
)
from videorl.rewards.per_frame import ImageScorer, PerFrameReward
from videorl.rewards.placement import placement

CHECKPOINT_FILES = ("*.json", "*.safetensors")
OLD_BUFFERS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
"""Tensors 0, 1, 2 … that transformers stored before 4.31."""


def load_pick_score(
    path: str,
    *,
    base: str = CLIP_H,
    device: str | None = None,
    dtype: str = "float32",
    **frames: Any,
) -> PerFrameReward:
    """Load PickScore from its published layout, that of a transformers `CLIPModel`.

    The score of a frame is exp(logit_scale) times the cosine, as in the authors' README.

    Args:
        path: Folder or hub id with `config.json` and the tensors.
        base: Folder or hub id of the tokenizer: the authors use that of CLIP-H.
        device: Where the model runs; None = the GPU if there is one.
        dtype: Type of weights and arithmetic. Scores of candidates are close, which float32 can
            tell apart.
        frames: `num_frames` and `batch_frames` of `PerFrameReward`.

    Raises:
        CheckpointError: Files or tensors are missing, unexpected, damaged or of a wrong shape.
        ConfigError: An option has an impossible value.
    """
    where, kind = placement("an image reward", device, dtype)
    folder = find_folder(path, CHECKPOINT_FILES)
    config = read_config(folder)
    with empty_parameters():
        network = ClipPreference(config, is_scaled=True)
    stored = {k: v for k, v in read_tensors(folder).items() if k not in OLD_BUFFERS}
    load_strictly(network.clip, stored, source=folder, dtype=kind)
    network.requires_grad_(False).eval().to(where)
    tokenizer = read_tokenizer(find_folder(base, BASE_FILES))
    side_px = config.vision_config.image_size
    pixels = partial(pil_pixels, side_px=side_px, crop=transformers_crop)
    floats = partial(float_pixels, side_px=side_px, crop=transformers_crop, is_clamped=True)
    prompts = ClipPrompts(tokenizer, network)
    scorer = ImageScorer("preference", network, pixels, floats, prompts, where)
    return PerFrameReward(scorer, **frames)
