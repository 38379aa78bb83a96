"""Decode a video with gradient without holding the activations of all its frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_HOST = torch.device("cpu")


@contextmanager
def checkpointed(decoder: nn.Module) -> Iterator[None]:
    """Inside the block, let each call of a causal VAE's `decoder` be computed again backwards.

    Both families decode a few latent frames per call, and hand on what the next frames need of
    them: Wan in a list that its decoder changes, CogVideoX as a second result. What was handed on
    is all that is kept of a call, in host memory; the activations are those of one call at a time.
    The numbers are the same.
    """
    decode = decoder.forward

    def forward(latents: Tensor, **options: Any) -> Any:
        kept = _moved(options, _HOST)

        def run(latents: Tensor) -> tuple[Any, dict[str, Any]]:
            own = _moved(kept, latents.device)  # lists too: a second run begins as the first did
            return decode(latents, **own), own

        result, changed = checkpoint(run, latents, use_reentrant=False)
        for name, value in options.items():
            if isinstance(value, list):
                value[:] = changed[name]
        return result

    decoder.forward = forward
    try:
        yield
    finally:
        decoder.forward = decode


def _moved(value: Any, device: torch.device) -> Any:
    """Return new lists and dicts of the same, their tensors on a device, with gradient."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [_moved(one, device) for one in value]
    if isinstance(value, dict):
        return {name: _moved(one, device) for name, one in value.items()}
    return value
