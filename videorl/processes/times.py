"""Times of a batch beside its latents."""

from __future__ import annotations

from torch import Tensor


def as_time(t_B: Tensor, like: Tensor) -> Tensor:
    """Reshape `t_B` so that it broadcasts over `like` [B, ...], in the type of `like`."""
    return t_B.to(like).view(-1, *[1] * (like.dim() - 1))
