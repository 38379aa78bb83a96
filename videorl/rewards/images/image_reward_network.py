"""ImageReward's network: BLIP (ViT-L and BERT with cross-attention), and a head on its first token.

It consists of the BLIP parts of transformers; tensors are renamed from the published checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from videorl.errors import CheckpointError
from videorl.rewards.checkpoints import (
    check_tensors,
    empty_parameters,
    load_strictly,
    read_json,
    read_tensors,
)
from videorl.rewards.images.score_head import ScoreHead

if TYPE_CHECKING:
    from transformers import BlipTextConfig, BlipVisionConfig

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Statistics of the head's outputs on the authors' data, which normalise the score."""
HEAD_WIDTH = 64
"""Width of the attention heads in BLIP's picture tower, base and large alike."""
UNUSED = (
    "blip.vision_proj.weight",
    "blip.vision_proj.bias",
    "blip.text_proj.weight",
    "blip.text_proj.bias",
    "blip.text_encoder.embeddings.position_ids",
)
"""Tensors of the published checkpoint that do not affect the score."""
_VISION_NAMES = (
    ("embeddings.class_embedding", "cls_token"),
    ("embeddings.position_embedding", "pos_embed"),
    ("embeddings.patch_embedding.", "patch_embed.proj."),
    ("encoder.layers.", "blocks."),
    ("post_layernorm.", "norm."),
    (".layer_norm1.", ".norm1."),
    (".layer_norm2.", ".norm2."),
    (".self_attn.projection.", ".attn.proj."),
    (".self_attn.qkv.", ".attn.qkv."),
)


class ImageRewardNetwork(nn.Module):
    """BLIP that reads the prompt while looking at the picture."""

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig) -> None:
        """Build the network with random weights."""
        from transformers.models.blip.modeling_blip import BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        super().__init__()
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        self.mlp = ScoreHead(text.hidden_size)

    def forward(self, pixels_B3HW: Tensor, token_ids_BL: Tensor) -> Tensor:
        """Return the normalised scores [B] of pictures for padded token ids, in float32."""
        patches: Any = self.vision(pixel_values=pixels_B3HW.to(self.vision.dtype))
        words: Any = self.text(
            token_ids_BL,
            attention_mask=(token_ids_BL != self.text.config.pad_token_id).long(),
            encoder_hidden_states=patches.last_hidden_state,
        )
        output_B = self.mlp(words.last_hidden_state[:, 0].float()).squeeze(-1)
        return (output_B - MEAN) / STD


def load_network(folder: Path, file: Path, dtype: torch.dtype) -> ImageRewardNetwork:
    """Build the network and fill it from the published checkpoint.

    Args:
        folder: Has `med_config.json`, the configuration of the text half.
        file: Has the tensors, whose shapes give the configuration of the picture tower.
        dtype: Type of BLIP; the head always computes in float32.

    Raises:
        CheckpointError: Files or tensors are missing, unexpected, damaged or of a wrong shape; the
            error has a tensor's name in the checkpoint.
    """
    stored = {k: v for k, v in read_tensors(file).items() if k not in UNUSED}
    vision = vision_config(stored, file)
    text = text_config(folder / "med_config.json", vision.hidden_size)
    with empty_parameters():
        network = ImageRewardNetwork(vision, text)
    names = {own: published_name(own) for own in network.state_dict()}
    shapes = {names[own]: tuple(tensor.shape) for own, tensor in network.state_dict().items()}
    check_tensors(shapes, stored, file)
    for prefix, part in network.named_children():
        own = {name: stored[names[f"{prefix}.{name}"]] for name in part.state_dict()}
        kind = torch.float32 if part is network.mlp else dtype
        load_strictly(part, own, source=file, dtype=kind)
    return network.requires_grad_(False).eval()


def published_name(name: str) -> str:
    """Return the name of a tensor of this network in the published checkpoint."""
    part, _, rest = name.partition(".")
    if part == "mlp":
        return name
    if part == "text":
        return f"blip.text_encoder.{rest}"
    for own, published in _VISION_NAMES:
        rest = rest.replace(own, published)
    return f"blip.visual_encoder.{rest}"


def vision_config(stored: Mapping[str, Tensor], file: Path) -> BlipVisionConfig:
    """Return the picture tower's configuration, which no file states, from the tensors' shapes.

    Raises:
        CheckpointError: The tensors are missing or of another kind of network.
    """
    from transformers import BlipVisionConfig

    prefix = "blip.visual_encoder."
    try:
        width, _, patch_px, _ = stored[f"{prefix}patch_embed.proj.weight"].shape
        num_patches = stored[f"{prefix}pos_embed"].shape[1] - 1
        mlp_width = stored[f"{prefix}blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{file} does not hold a picture tower of BLIP: {error}") from error
    blocks = {name.split(".")[3] for name in stored if name.startswith(f"{prefix}blocks.")}
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=mlp_width,
        num_hidden_layers=len(blocks),
        num_attention_heads=width // HEAD_WIDTH,
        image_size=math.isqrt(num_patches) * patch_px,
        patch_size=patch_px,
        hidden_act="gelu",
        layer_norm_eps=1e-6,  # the authors'; transformers' default is 1e-5
    )


def text_config(path: Path, vision_width: int) -> BlipTextConfig:
    """Return the text half's configuration from `med_config.json`.

    Raises:
        CheckpointError: The file is missing or lacks a value.
    """
    from transformers import BlipTextConfig

    content = read_json(path)
    same = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
        "hidden_act",
        "layer_norm_eps",
        "pad_token_id",
    )
    if missing := [name for name in same if name not in content]:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}")
    # is_decoder gives the layers cross-attention; calls do not ask for causal attention.
    kept = {name: content[name] for name in same}
    return BlipTextConfig(**kept, encoder_hidden_size=vision_width, is_decoder=True)
