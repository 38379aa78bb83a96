"""What STDiT3 embeds: places, times and frame rates."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FREQUENCIES = 256
"""Length of the sinusoids of times and frame rates."""


def compute_type(weight: Tensor) -> torch.dtype:
    """Return the type that layers compute in: that of autocast, or else of their weights.

    So a learner that holds weights in float32 rounds where a model in half precision does.
    """
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def positions(rows: int, columns: int, scale: float, width: int, device: torch.device) -> Tensor:
    """Return the places of a grid of patches, [rows × columns, width] in float32.

    Args:
        rows: Patches from top to bottom.
        columns: Patches from left to right.
        scale: √(height × width) of the video / `input_sq_size`, in pixels.
        width: Of the network, a multiple of 4.
        device: Of the result.
    """
    base = round(math.sqrt(rows * columns))
    down = torch.arange(rows, device=device, dtype=torch.float32) / scale * base / rows
    across = torch.arange(columns, device=device, dtype=torch.float32) / scale * base / columns
    # The column comes first.
    column_RC, row_RC = torch.meshgrid(across, down, indexing="xy")
    places = [_sine_first(each.flatten(), width // 2) for each in (column_RC, row_RC)]
    return torch.cat(places, dim=1)


def _sine_first(place_N: Tensor, width: int) -> Tensor:
    steps = torch.arange(width // 2, device=place_N.device, dtype=torch.float32)
    angles = place_N[:, None] * 10_000 ** (-2 * steps / width)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class NumberEmbedder(nn.Module):
    """Embeds a number (a time of 0 … 1000, or frames per second) as [B, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, number_B: Tensor) -> Tensor:
        """Return the embedding; the sinusoid is made in float32, cosine first."""
        half = FREQUENCIES // 2
        steps = torch.arange(half, device=number_B.device, dtype=torch.float32)
        angles = number_B.float()[:, None] * torch.exp(-math.log(10_000) * steps / half)
        sinusoid = torch.cat([angles.cos(), angles.sin()], dim=1)
        return self.mlp(sinusoid.to(compute_type(next(self.parameters()))))


class RotaryTime(nn.Module):
    """Turns queries and keys by their frame; frequencies are part of the checkpoint."""

    freqs: Tensor

    def __init__(self, head_width: int) -> None:
        super().__init__()
        steps = torch.arange(0, head_width, 2, dtype=torch.float32)
        self.register_buffer("freqs", 10_000 ** (-steps / head_width))

    def forward(self, x_BHTD: Tensor) -> Tensor:
        """Return [B, heads, frames, width] with neighbouring numbers turned as pairs."""
        freqs = self.freqs.to(compute_type(self.freqs))
        frames = torch.arange(x_BHTD.shape[2], device=x_BHTD.device, dtype=freqs.dtype)
        angles = (frames[:, None] * freqs).repeat_interleave(2, dim=1)
        first, second = x_BHTD.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([-second, first], dim=-1).flatten(-2)
        return (x_BHTD * angles.cos() + turned * angles.sin()).to(x_BHTD.dtype)


class Captions(nn.Module):
    """Projects text embeddings; holds the embedding that stands for no text."""

    y_embedding: Tensor

    def __init__(self, caption_width: int, width: int, num_tokens: int) -> None:
        super().__init__()
        # A buffer: what copies parameters alone would miss it.
        null = torch.randn(num_tokens, caption_width) / caption_width**0.5
        self.register_buffer("y_embedding", null)
        self.y_proj = Mlp(caption_width, width, width)

    def forward(self, text_BLD: Tensor) -> Tensor:
        """Return the projected tokens [B, L, width]."""
        return self.y_proj(text_BLD)

    def without_text(self, text_BLD: Tensor, mask_BL: Tensor, like_BL: Tensor) -> list[Tensor]:
        """Return texts and masks in which what is all padding reads the embedding of no text.

        Args:
            text_BLD: As the text encoder returns them; L is at most that of the embedding.
            mask_BL: True = a token, False = padding.
            like_BL: The mask for texts that are all padding.
        """
        null_LD = self.y_embedding[: text_BLD.shape[1]].to(text_BLD)
        absent_B = ~mask_BL.any(1)
        text_BLD = torch.where(absent_B[:, None, None], null_LD, text_BLD)
        return [text_BLD, torch.where(absent_B[:, None], like_BL, mask_BL)]


class Mlp(nn.Module):
    """Two linear layers with GELU (tanh) between them."""

    def __init__(self, width: int, inner: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, out)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor whose last axis has `out` numbers."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
