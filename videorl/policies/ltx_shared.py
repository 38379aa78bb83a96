"""LTX-Video where several processes share the tokens of a video.

The plan of diffusers 0.42 also splits the text and its mask, for which the mask must have as many
heads as a process has, and the text a length that divides. Here each process reads all of the text.
"""

from __future__ import annotations

from typing import Any

from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput
from torch import Tensor

_SPLIT: dict[str, Any] = {"split_dim": 1, "expected_dims": 3}
PLAN: dict[str, Any] = {
    "": {"hidden_states": ContextParallelInput(**_SPLIT)},
    "rope": {place: ContextParallelInput(**_SPLIT, split_output=True) for place in (0, 1)},
    "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3),
}
"""Tokens and their rotary embeddings are split, what comes out is gathered."""


class TextAttention:
    """Calls a stock processor whose attention is not shared: its tokens read all of the text.

    Args:
        stock: The processor of a layer that attends to text.
    """

    def __init__(self, stock: Any) -> None:
        self._stock = stock

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Tensor:
        """Return what the stock processor does."""
        return self._stock(
            attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
        )


def share_text_attention(transformer: Any) -> None:
    """Keep diffusers from sharing the attention to the text, which it does by processor."""
    for block in transformer.transformer_blocks:
        block.attn2.processor = TextAttention(block.attn2.processor)
