"""Tiny random CLIPs in the published layouts of transformers and OpenCLIP.

CLIP folders are written by transformers, as the published ones were. OpenCLIP's layout is written
by modules here, which know nothing of transformers: what they compute is the expectation.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

SIDE_PX = 28
PATCH_PX = 14


def spread(module: nn.Module, seed: int) -> nn.Module:
    """Give every parameter random values so large that inputs matter."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return module.eval()


def save_clip(folder: Path, seed: int = 0) -> CLIPModel:
    """Write a transformers CLIP with its tokenizer and return it."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("c", "a"), ("ca", "t</w>"), ("r", "e"), ("re", "d</w>")]
    words = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *("".join(pair) for pair in merges),
    ]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: place for place, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocabulary, [*merges])  # pyright: ignore[reportArgumentType]
    tokenizer.save_pretrained(folder)
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "gelu"}
    text = {
        "hidden_size": 24,
        "intermediate_size": 96,
        "vocab_size": len(words),
        "max_position_embeddings": 16,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 128,
        "image_size": SIDE_PX,
        "patch_size": PATCH_PX,
    }
    config = CLIPConfig(text_config=text | layers, vision_config=vision | layers, projection_dim=16)
    model = CLIPModel(config)
    spread(model, seed)
    model.save_pretrained(folder)
    # The published files are older than transformers' decision to store these no more.
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    tensors["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(tensors, folder / "model.safetensors")
    return model


class OpenClipBlock(nn.Module):
    """One residual block; parameters are named as in OpenCLIP's checkpoints."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        parts = [
            ("c_fc", nn.Linear(width, 4 * width)),
            ("gelu", nn.GELU()),
            ("c_proj", nn.Linear(4 * width, width)),
        ]
        self.mlp = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class OpenClipTower(nn.Module):
    """`resblocks`, run one after the other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(OpenClipBlock(width, heads) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class OpenClipVision(nn.Module):
    """The picture tower."""

    def __init__(self, width: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, PATCH_PX, PATCH_PX, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        positions = (SIDE_PX // PATCH_PX) ** 2 + 1
        self.positional_embedding = nn.Parameter(torch.empty(positions, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = OpenClipTower(width, heads)
        self.proj = nn.Parameter(torch.empty(width, embed_dim))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1)
        x = self.transformer(self.ln_pre(x + self.positional_embedding))
        return self.ln_post(x[:, 0]) @ self.proj


class OpenClip(nn.Module):
    """Both towers; sizes are those of `save_clip`."""

    def __init__(self, vocabulary: int, length: int = 16) -> None:
        super().__init__()
        self.visual = OpenClipVision(32, 2, 16)
        self.token_embedding = nn.Embedding(vocabulary, 24)
        self.positional_embedding = nn.Parameter(torch.empty(length, 24))
        self.transformer = OpenClipTower(24, 2)
        self.ln_final = nn.LayerNorm(24)
        self.text_projection = nn.Parameter(torch.empty(24, 16))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def cosine(self, pixels: Tensor, token_ids: list[int]) -> Tensor:
        """Return the cosine of each picture with one prompt, padded with 0 as OpenCLIP does."""
        length = len(self.positional_embedding)
        ids = torch.tensor([token_ids + [0] * (length - len(token_ids))])
        mask = torch.full((length, length), -math.inf).triu(1)
        x = self.token_embedding(ids) + self.positional_embedding
        x = self.ln_final(self.transformer(x, mask))
        text = x[0, ids[0].argmax()] @ self.text_projection
        return F.cosine_similarity(self.visual(pixels), text[None])


def save_hps_v2(folder: Path, vocabulary: int) -> OpenClip:
    """Write both published files and return the reference of v2.1."""
    folder.mkdir()
    for seed, name in ((1, "HPS_v2_compressed.pt"), (2, "HPS_v2.1_compressed.pt")):
        model = spread(OpenClip(vocabulary), seed)
        torch.save({"epoch": 1, "state_dict": model.state_dict()}, folder / name)
    assert isinstance(model, OpenClip)
    return model
