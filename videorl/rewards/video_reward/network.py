"""VideoReward's network: a stock Qwen2-VL with a linear head read at the reward tokens.

The published model was trained, and is used, with the same position on all three rotary axes: so
did transformers 4.45. Later versions compute Qwen2-VL's own positions, which give other scores, so
positions are explicit here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from videorl.rewards.video_reward.qwen_video import Patches

if TYPE_CHECKING:
    from transformers import DynamicCache

LORA_SUFFIXES = ("base_layer.weight", "lora_A.default.weight", "lora_B.default.weight")
_PUBLISHED_PREFIXES = (
    ("backbone.model.visual.", "visual."),
    ("backbone.model.language_model.", "model."),
    ("backbone.lm_head.", "lm_head."),
    ("rm_head.", "rm_head."),
)


class VideoRewardNetwork(nn.Module):
    """Qwen2-VL and the reward head; not a subclass, which would lose transformers' key mapping."""

    def __init__(self, config: Any, output_dim: int = 1) -> None:
        """Build the network with random weights.

        Args:
            config: A `Qwen2VLConfig`.
            output_dim: Outputs of the head: 1, or 3 with one for each reward token.
        """
        from transformers import Qwen2VLForConditionalGeneration

        super().__init__()
        self.backbone = Qwen2VLForConditionalGeneration(config)
        self.rm_head = nn.Linear(config.text_config.hidden_size, output_dim, bias=False)

    @classmethod
    def around(cls, backbone: Any, output_dim: int = 1) -> VideoRewardNetwork:
        """Put a new head on an existing `Qwen2VLForConditionalGeneration`."""
        network = cls.__new__(cls)
        nn.Module.__init__(network)
        network.backbone = backbone
        width = backbone.config.text_config.hidden_size
        network.rm_head = nn.Linear(width, output_dim, bias=False)
        return network

    @property
    def device(self) -> torch.device:
        """Return the device that it runs on."""
        return self.rm_head.weight.device

    def video_features(self, videos: Sequence[Patches]) -> Tensor:
        """Return the features [N, D] of all tokens of the videos, in order.

        Videos are encoded one at a time, so that memory does not grow with the batch: even the
        smallest has a thousand patches, which keep any device busy.
        """
        visual = self.backbone.model.visual
        features: list[Tensor] = []
        for video in videos:
            pixels = video.pixels.to(self.device, visual.dtype)
            grid_13 = torch.tensor([video.grid_thw], device=self.device)
            features.append(visual(pixels, grid_thw=grid_13).pooler_output)
        return torch.cat(features)

    def forward(
        self,
        token_ids_BL: Tensor,
        video_features_ND: Tensor | None = None,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """Return the last hidden states [B, L, D] of right-padded rows.

        Padding needs no mask: attention is causal, so it does not affect what comes before it.

        Args:
            token_ids_BL: Token ids, with placeholders for video tokens.
            video_features_ND: Features for the placeholders, in order; None if there are none.
            cache: Keys and values of preceding tokens; those of these tokens are added.
        """
        language_model = self.backbone.model.language_model
        token_ids_BL = token_ids_BL.to(self.device)
        embeds_BLD = language_model.embed_tokens(token_ids_BL)
        if video_features_ND is not None:
            is_video_BL1 = (token_ids_BL == self.backbone.config.video_token_id).unsqueeze(-1)
            embeds_BLD = embeds_BLD.masked_scatter(
                is_video_BL1, video_features_ND.to(embeds_BLD.dtype)
            )
        start = cache.get_seq_length() if cache is not None else 0
        batch, length = token_ids_BL.shape
        positions_L = torch.arange(start, start + length, device=self.device)
        return language_model(
            inputs_embeds=embeds_BLD,
            position_ids=positions_L.view(1, 1, -1).expand(3, batch, -1),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def rewards(self, hidden_ND: Tensor, dimensions_N: Sequence[int]) -> Tensor:
        """Return rewards [N] from hidden states at reward tokens (0 visual, 1 motion, 2 text)."""
        outputs_NO = self.rm_head(hidden_ND)
        if outputs_NO.shape[1] == 1:
            return outputs_NO[:, 0]
        return outputs_NO[torch.arange(len(outputs_NO)), torch.as_tensor(dimensions_N)]


def published_name(name: str) -> str:
    """Return the name of a tensor in VideoAlign's checkpoints, without PEFT's additions."""
    for own, published in _PUBLISHED_PREFIXES:
        if name.startswith(own):
            return published + name.removeprefix(own)
    raise KeyError(name)


def published_shapes(
    network: VideoRewardNetwork, lora_layers: Sequence[str], rank: int
) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a published checkpoint, without PEFT's prefix.

    Args:
        network: May be on the meta device.
        lora_layers: Published names of the linear layers with unmerged LoRA weights.
        rank: Rank of that LoRA.
    """
    with_lora = set(lora_layers)
    shapes: dict[str, tuple[int, ...]] = {}
    for own_name, tensor in network.state_dict().items():
        layer, _, kind = published_name(own_name).rpartition(".")
        shape = tuple(tensor.shape)
        if layer not in with_lora:
            shapes[f"{layer}.{kind}"] = shape
            continue
        shapes[f"{layer}.base_layer.{kind}"] = shape
        if kind == "weight":
            shapes[f"{layer}.lora_A.default.weight"] = (rank, shape[1])
            shapes[f"{layer}.lora_B.default.weight"] = (shape[0], rank)
    return shapes


def merged(
    tensors: Mapping[str, Tensor], layer: str, scale: float, dtype: torch.dtype | None
) -> Tensor:
    """Return W + scale · B A of a layer, computed in float32, in `dtype` (None = as stored)."""
    base, down, up = (tensors[f"{layer}.{suffix}"] for suffix in LORA_SUFFIXES)
    return (base.float() + scale * (up.float() @ down.float())).to(dtype or base.dtype)
