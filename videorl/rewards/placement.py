"""Where a reward model runs, and in which type it computes."""

from __future__ import annotations

import torch

from videorl.errors import ConfigError


def placement(
    model: str, device: str | None, dtype: str | None
) -> tuple[torch.device, torch.dtype]:
    """Return the device and the floating type that a reward model's options ask for.

    Args:
        model: Name of the model, for errors.
        device: None = the GPU if there is one.
        dtype: Name of a floating type of torch; None = float32 on the CPU, else bfloat16.

    Raises:
        ConfigError: torch has no such floating type.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    name = dtype or ("float32" if where.type == "cpu" else "bfloat16")
    kind = getattr(torch, name, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ConfigError(f"dtype of {model}: torch has no floating type {name!r}")
    return where, kind
