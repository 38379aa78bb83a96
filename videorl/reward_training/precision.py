"""Mixed precision of reward models in training: weights are float32, whatever computes."""

from __future__ import annotations

import torch


def autocast(dtype: str, device: torch.device) -> torch.autocast:
    """Return the context in which a network computes.

    Args:
        dtype: `model.dtype` of the recipe; auto = bfloat16 on a GPU, else float32.
        device: Where the network runs.
    """
    is_half = dtype == "bfloat16" or (dtype == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=is_half)
