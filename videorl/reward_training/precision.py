"""What computes in the training of a reward model, and what is kept: weights are float32."""

from __future__ import annotations

from typing import Any

import torch


def autocast(dtype: str, device: torch.device) -> torch.autocast:
    """Return the context in which a network computes.

    Args:
        dtype: `model.dtype` of the recipe; auto = bfloat16 on a GPU, else float32.
        device: Where the network runs.
    """
    is_half = dtype == "bfloat16" or (dtype == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=is_half)


def checkpoint_gradients(model: Any) -> None:
    """Let a model of transformers keep only its layers' inputs for the backward pass, in training.

    Not reentrant, so that parameters learn behind inputs that need no gradient.
    """
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
