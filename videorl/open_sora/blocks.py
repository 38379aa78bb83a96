"""The blocks of STDiT3: attention over the patches of a frame, or over the frames of a patch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videorl.open_sora.embeddings import Mlp, compute_type

Rotate = Callable[[Tensor], Tensor]
"""Turns queries or keys [B, heads, N, D] by their place."""


class RMSNorm(nn.Module):
    """Root mean square normalisation of the last axis, computed in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return x / √(mean(x²) + 1e-6) × weight."""
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)
        return scaled.to(x.dtype) * self.weight.to(x.dtype)


class SelfAttention(nn.Module):
    """Attention with normalised queries and keys."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = RMSNorm(width // num_heads)
        self.k_norm = RMSNorm(width // num_heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, rotate: Rotate | None = None) -> Tensor:
        """Return [B, N, D]."""
        heads = self.qkv(x_BND).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        query, key = self.q_norm(query), self.k_norm(key)
        if rotate is not None:
            query, key = rotate(query), rotate(key)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Attention of the video's tokens to the text's."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_linear = nn.Linear(width, width)
        self.kv_linear = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, text_BLD: Tensor, mask_BL: Tensor | None) -> Tensor:
        """Return [B, N, D]; tokens that the mask has as False are not looked at."""
        query = self.q_linear(x_BND).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        both = self.kv_linear(text_BLD).unflatten(-1, (2, self.num_heads, -1))
        key, value = both.permute(2, 0, 3, 1, 4)
        mask = None if mask_BL is None else mask_BL[:, None, None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Self-attention over patches or frames, cross-attention and a feed-forward network.

    Args:
        width: Of a token.
        num_heads: Of both attentions.
        inner: Of the feed-forward network.
        over_time: Whether tokens see the other frames at their place, else those of their frame.
    """

    def __init__(self, width: int, num_heads: int, inner: int, *, over_time: bool) -> None:
        super().__init__()
        self.over_time = over_time
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)
        self.attn = SelfAttention(width, num_heads)
        self.cross_attn = CrossAttention(width, num_heads)
        self.mlp = Mlp(width, inner, width)

    def forward(
        self,
        x_BND: Tensor,
        num_frames: int,
        text_BLD: Tensor,
        mask_BL: Tensor | None,
        time_BFD: Tensor,
        rotate: Rotate,
    ) -> Tensor:
        """Return the tokens [B, N, D] after the block.

        Args:
            x_BND: Tokens, frame by frame.
            num_frames: Latent frames T of them.
            text_BLD: Projected text.
            mask_BL: Tokens of the text that count; None = all.
            time_BFD: Six modulations, [B, 1 or T, 6 × D]: one per video or one per frame.
            rotate: Turns queries and keys by their frame.
        """
        x_BTSD = x_BND.unflatten(1, (num_frames, -1))
        table = self.scale_shift_table.to(compute_type(self.scale_shift_table))
        shared = table + time_BFD.unflatten(-1, (6, -1))
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = shared[:, :, :, None].unbind(2)
        x = x_BTSD + gate_a * self._attend(modulated(x_BTSD, shift_a, scale_a), rotate)
        x = x + self.cross_attn(x.flatten(1, 2), text_BLD, mask_BL).view_as(x)
        return (x + gate_m * self.mlp(modulated(x, shift_m, scale_m))).flatten(1, 2)

    def _attend(self, x_BTSD: Tensor, rotate: Rotate) -> Tensor:
        batch = len(x_BTSD)
        if self.over_time:
            mixed = self.attn(x_BTSD.transpose(1, 2).flatten(0, 1), rotate)
            return mixed.unflatten(0, (batch, -1)).transpose(1, 2)
        return self.attn(x_BTSD.flatten(0, 1)).unflatten(0, (batch, -1))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return layer_norm(x) × (1 + scale) + shift; the norm has no weights."""
    with torch.autocast(x.device.type, enabled=False):  # which would return float32
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
