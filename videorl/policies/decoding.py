"""Decode a video with gradient without holding the activations of all its frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def checkpointed(decoder: nn.Module) -> Iterator[None]:
    """Inside the block, let each call of a causal VAE's `decoder` be computed again backwards.

    Both families decode a few latent frames per call, and hand on what the next frames need of
    them: Wan in a list that its decoder changes, CogVideoX as a second result. So between the calls
    only that is held, and in the backward pass the activations of one call at a time. Same numbers.
    """
    decode = decoder.forward

    def forward(latents: Tensor, **options: Any) -> Any:
        # A second run must begin with what the first had, so each works on copies of the lists.
        lists = {name: [*value] for name, value in options.items() if isinstance(value, list)}

        def run(latents: Tensor) -> tuple[Any, dict[str, list[Any]]]:
            changed = {name: [*value] for name, value in lists.items()}
            return decode(latents, **{**options, **changed}), changed

        result, changed = checkpoint(run, latents, use_reentrant=False)
        for name, value in changed.items():
            options[name][:] = value
        return result

    decoder.forward = forward
    try:
        yield
    finally:
        decoder.forward = decode
