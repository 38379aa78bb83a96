"""The colour statistics of OpenAI's CLIP, with which many reward models normalise pictures."""

from __future__ import annotations

import torch
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def normalised(pixels_F3HW: Tensor) -> Tensor:
    """Return (pixels - mean) / std per colour, for pixels in [0, 1]."""
    mean_311, std_311 = (
        torch.tensor(values, device=pixels_F3HW.device)[:, None, None] for values in (MEAN, STD)
    )
    return (pixels_F3HW - mean_311) / std_311
