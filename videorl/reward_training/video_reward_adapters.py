"""Prepare VideoReward's network for training: LoRA, reward tokens, head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videorl.errors import CheckpointError
from videorl.reward_training.config import RewardLoraConfig
from videorl.rewards.video_reward.network import VideoRewardNetwork

_LANGUAGE_LINEARS = (
    r".*\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"  # of every layer, nothing else
)


class RewardTokenEmbedding(nn.Module):
    """An embedding table in which only the rows of the reward tokens are trained.

    These rows are a parameter of their own, so that weight decay does not change the others.
    """

    def __init__(self, table: nn.Embedding, token_ids: Sequence[int]) -> None:
        """Start from the rows of `table`, which is frozen."""
        super().__init__()
        self.table = table.requires_grad_(False)
        self.token_ids = tuple(token_ids)
        self.rows = nn.Parameter(table.weight.detach()[list(token_ids)].clone())

    def forward(self, token_ids_BL: Tensor) -> Tensor:
        """Return embeddings [B, L, D]."""
        embeds_BLD = self.table(token_ids_BL)
        for row, token_id in zip(self.rows, self.token_ids, strict=True):
            is_here_BL1 = (token_ids_BL == token_id).unsqueeze(-1)
            embeds_BLD = torch.where(is_here_BL1, row.to(embeds_BLD.dtype), embeds_BLD)
        return embeds_BLD

    def merged(self) -> Tensor:
        """Return the whole table [V, D], including the trained rows."""
        table_VD = self.table.weight.detach().clone()
        table_VD[list(self.token_ids)] = self.rows.detach().to(table_VD.dtype)
        return table_VD


def load_untrained(base: Path, vocab_size: int, seed: int) -> VideoRewardNetwork:
    """Return a base model in float32, with a new head and new embedding rows up to `vocab_size`.

    Args:
        base: Folder of a Qwen2-VL in the layout of transformers.
        vocab_size: Number of tokens of the tokenizer with the reward tokens.
        seed: Seed of the new weights.

    Raises:
        CheckpointError: The folder cannot be read, or weights are missing.
    """
    from transformers import Qwen2VLForConditionalGeneration

    stock: Any = Qwen2VLForConditionalGeneration
    try:
        backbone, report = stock.from_pretrained(
            str(base), dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{base} is not a readable Qwen2-VL model: {error}") from error
    if missing := sorted(set(report["missing_keys"]) - {"lm_head.weight"}):
        raise CheckpointError(
            f"{base} lacks {len(missing)} tensors of a Qwen2-VL model, such as {missing[0]}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        backbone.resize_token_embeddings(vocab_size, mean_resizing=False)
        network = VideoRewardNetwork.around(backbone)
        std = backbone.config.text_config.initializer_range
        nn.init.normal_(network.rm_head.weight, std=std)
    return network


def make_trainable(
    network: VideoRewardNetwork,
    lora: RewardLoraConfig,
    reward_ids: Sequence[int],
    *,
    train_vision: bool,
    seed: int,
) -> None:
    """Set which parameters are trained, in place, adding adapters unless `lora.rank` is 0.

    With adapters, these, the head and the rows of the reward tokens are trained; with rank 0, the
    whole language model and the head. The vision tower is trained if `train_vision` says so.

    Args:
        network: Is changed in place.
        lora: Adapters of the linear layers of the language model.
        reward_ids: Ids of the reward tokens.
        train_vision: Whether to train the vision tower.
        seed: Seed of the initial adapters.
    """
    network.requires_grad_(lora.rank == 0)
    network.backbone.model.visual.requires_grad_(train_vision)
    network.rm_head.requires_grad_(True)
    if lora.rank == 0:
        return
    from peft import LoraConfig, inject_adapter_in_model

    language_model: Any = network.backbone.model.language_model
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_LANGUAGE_LINEARS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(config, language_model)
    language_model.embed_tokens = RewardTokenEmbedding(language_model.embed_tokens, reward_ids)
