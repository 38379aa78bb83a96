"""The LAION aesthetic predictors: a small head on the picture features of OpenAI's CLIP ViT-L/14.

Papers use version 2, `sac+logos+ava1-l14-linearMSE.pth`; version 1 is a single linear layer,
`sa_0_4_vit_l_14_linear.pth`. Scores are about 1 … 10 and do not depend on the prompt.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videorl.errors import CheckpointError
from videorl.rewards.checkpoints import (
    empty_parameters,
    find_folder,
    load_strictly,
    read_tensors,
)
from videorl.rewards.images.clip_pixels import float_pixels, pil_pixels
from videorl.rewards.images.clip_preference import read_config
from videorl.rewards.images.score_head import ScoreHead
from videorl.rewards.per_frame import ImageScorer, PerFrameReward
from videorl.rewards.placement import placement

CLIP_L = "openai/clip-vit-large-patch14"
CLIP_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")
HEADS = ("sac+logos+ava1-l14-linearMSE.pth", "sa_0_4_vit_l_14_linear.pth")
_PICTURE_HALF = ("vision_model.", "visual_projection.")
_OLD_BUFFER = "vision_model.embeddings.position_ids"


class AestheticNetwork(nn.Module):
    """CLIP's picture tower and a head on its unit features."""

    def __init__(self, config: Any, head: nn.Module) -> None:
        """Build it from a `CLIPVisionConfig`; `head` maps features [B, D] to scores [B, 1]."""
        from transformers import CLIPVisionModelWithProjection

        super().__init__()
        self.clip = CLIPVisionModelWithProjection(config)
        self.head = head

    def forward(self, pixels_B3HW: Tensor, texts_B0: Tensor | None = None) -> Tensor:
        """Return the scores [B] of pictures, in float32; `texts_B0` is not used."""
        features: Any = self.clip(pixel_values=pixels_B3HW.to(self.clip.dtype))
        unit_BD = F.normalize(features.image_embeds.float(), dim=-1)
        return self.head(unit_BD).squeeze(-1)


def load_laion_aesthetic(
    path: str,
    *,
    base: str = CLIP_L,
    device: str | None = None,
    dtype: str = "float32",
    **frames: Any,
) -> PerFrameReward:
    """Load an aesthetic predictor from its published layout.

    Args:
        path: The head's `.pth` file, or a folder with one of `HEADS`; both are published in the
            authors' GitHub repositories.
        base: Folder or hub id of the transformers CLIP ViT-L/14; its text half is not used.
        device: Where the model runs; None = the GPU if there is one.
        dtype: Type of CLIP; the head always computes in float32.
        frames: `num_frames` and `batch_frames` of `PerFrameReward`.

    Raises:
        CheckpointError: Files or tensors are missing, unexpected, damaged or of a wrong shape.
        ConfigError: An option has an impossible value.
    """
    where, kind = placement("an image reward", device, dtype)
    file = _find_head(Path(path))
    folder = find_folder(base, CLIP_FILES)
    whole = read_config(folder)
    config = whole.vision_config
    config.projection_dim = whole.projection_dim
    stored = read_tensors(file)
    is_linear = any(name in stored for name in ("weight", "bias"))
    with empty_parameters():
        width = whole.projection_dim
        head = nn.Linear(width, 1) if is_linear else ScoreHead(width)
        network = AestheticNetwork(config, head)
    load_strictly(network.head, stored, source=file, dtype=torch.float32)
    half = {
        name: tensor
        for name, tensor in read_tensors(folder).items()
        if name.startswith(_PICTURE_HALF) and name != _OLD_BUFFER
    }
    load_strictly(network.clip, half, source=folder, dtype=kind)
    network.requires_grad_(False).eval().to(where)
    pixels = partial(pil_pixels, side_px=config.image_size)
    floats = partial(float_pixels, side_px=config.image_size, is_clamped=True)
    scorer = ImageScorer("aesthetic", network, pixels, floats, None, where)
    return PerFrameReward(scorer, **frames)


def _find_head(path: Path) -> Path:
    found = [path] if path.is_file() else [path / name for name in HEADS if (path / name).is_file()]
    if len(found) != 1:
        raise CheckpointError(
            f"{path} is neither a head of the aesthetic predictor nor a folder with exactly one "
            f"of {' and '.join(HEADS)}; download one from the authors' GitHub repositories"
        )
    return found[0]
