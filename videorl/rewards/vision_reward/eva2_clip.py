"""The picture encoder of CogVLM2-Video: EVA2-CLIP, and the projector into the language model.

Module names are those of the published tensors. Two things differ from an ordinary CLIP tower: each
block normalises the *outputs* of attention and MLP (`x + LN(f(x))`), and after the last block a 2×2
convolution merges every four patches into one token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class VisionSizes:
    """The sizes in `vision_config` of a checkpoint's `config.json`."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_heads: int
    num_positions: int
    """Number of patches of a picture, plus the class token."""
    patch_size: int
    in_channels: int
    image_size: int
    """Side of the square pictures in pixels."""
    layer_norm_eps: float


class EVA2CLIP(nn.Module):
    """Encodes each picture [F, C, H, W] as `num_tokens` embeddings of the language model."""

    def __init__(self, sizes: VisionSizes, language_width: int, projector_width: int) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.patch_embedding = _PatchEmbedding(sizes)
        self.transformer = _Transformer(sizes)
        self.conv = nn.Conv2d(width, width, kernel_size=2, stride=2)
        self.linear_proj = _Projector(width, language_width, projector_width)
        self.boi = nn.Parameter(torch.zeros(1, 1, language_width))
        self.eoi = nn.Parameter(torch.zeros(1, 1, language_width))
        self.num_tokens = (sizes.image_size // sizes.patch_size // 2) ** 2 + 2
        """Tokens of a picture: a quarter of its patches, plus begin and end of image."""

    def forward(self, pixels_FCHW: Tensor) -> Tensor:
        """Return [F, num_tokens, language_width]: begin of image, patches row by row, end."""
        x_FLD = self.transformer(self.patch_embedding(pixels_FCHW))[:, 1:]
        num_frames, num_patches, width = x_FLD.shape
        side = math.isqrt(num_patches)
        grid = x_FLD.transpose(1, 2).reshape(num_frames, width, side, side)
        patches_FLD = self.linear_proj(self.conv(grid).flatten(2).transpose(1, 2))
        begin, end = (token.expand(num_frames, -1, -1) for token in (self.boi, self.eoi))
        return torch.cat([begin, patches_FLD, end], dim=1)


class _PatchEmbedding(nn.Module):
    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        width, patch = sizes.hidden_size, sizes.patch_size
        self.proj = nn.Conv2d(sizes.in_channels, width, kernel_size=patch, stride=patch)
        self.cls_embedding = nn.Parameter(torch.zeros(1, width))
        self.position_embedding = nn.Embedding(sizes.num_positions, width)

    def forward(self, pixels_FCHW: Tensor) -> Tensor:
        patches_FLD = self.proj(pixels_FCHW).flatten(2).transpose(1, 2)
        cls_FLD = self.cls_embedding.expand(len(patches_FLD), 1, -1)
        return torch.cat([cls_FLD, patches_FLD], dim=1) + self.position_embedding.weight


class _Transformer(nn.Module):
    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Block(sizes) for _ in range(sizes.num_hidden_layers))

    def forward(self, x_FLD: Tensor) -> Tensor:
        for layer in self.layers:
            x_FLD = layer(x_FLD)
        return x_FLD


class _Block(nn.Module):
    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)
        self.attention = _Attention(sizes)
        self.mlp = _MLP(sizes)
        self.post_attention_layernorm = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)

    def forward(self, x_FLD: Tensor) -> Tensor:
        x_FLD = x_FLD + self.input_layernorm(self.attention(x_FLD))
        return x_FLD + self.post_attention_layernorm(self.mlp(x_FLD))


class _Attention(nn.Module):
    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.num_heads = sizes.num_heads
        self.query_key_value = nn.Linear(sizes.hidden_size, sizes.hidden_size * 3)
        self.dense = nn.Linear(sizes.hidden_size, sizes.hidden_size)

    def forward(self, x_FLD: Tensor) -> Tensor:
        fused = self.query_key_value(x_FLD).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = fused.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.dense(mixed.transpose(1, 2).flatten(2))


class _MLP(nn.Module):
    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.fc1 = nn.Linear(sizes.hidden_size, sizes.intermediate_size)
        self.fc2 = nn.Linear(sizes.intermediate_size, sizes.hidden_size)

    def forward(self, x_FLD: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x_FLD)))


class _Projector(nn.Module):
    """A linear layer with norm, then a gated MLP, both to the language model's width."""

    def __init__(self, width: int, language_width: int, projector_width: int) -> None:
        super().__init__()
        self.linear_proj = nn.Linear(width, language_width, bias=False)
        self.norm1 = nn.LayerNorm(language_width)
        self.gate_proj = nn.Linear(language_width, projector_width, bias=False)
        self.dense_h_to_4h = nn.Linear(language_width, projector_width, bias=False)
        self.dense_4h_to_h = nn.Linear(projector_width, language_width, bias=False)

    def forward(self, x_FLD: Tensor) -> Tensor:
        x_FLD = F.gelu(self.norm1(self.linear_proj(x_FLD)))
        return self.dense_4h_to_h(F.silu(self.gate_proj(x_FLD)) * self.dense_h_to_4h(x_FLD))
