"""CogVideoX where several processes share the tokens of a video; diffusers has no plan for it.

Its attention is joint over text and video. The text is short and its length seldom divides, so each
process holds all of it, and only the tokens of the video are shared out.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput
from diffusers.models.attention_dispatch import SeqAllToAllDim
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor
from torch.nn import functional as F

PLAN: dict[str, Any] = {
    "": {"image_rotary_emb": [ContextParallelInput(split_dim=0, expected_dims=2)] * 2},
    "transformer_blocks.0": {"hidden_states": ContextParallelInput(split_dim=1, expected_dims=3)},
    "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3),
}
"""Rotary embeddings and the first block's tokens are split, what comes out is gathered."""


class SharedAttention:
    """Does what `CogVideoXAttnProcessor2_0` does, with all text and a share of the video's tokens.

    Args:
        group: The processes that share the video.
    """

    def __init__(self, group: Any) -> None:
        self._group = group

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the share of the video [B, N / n, D], and the text [B, L, D]."""
        assert attention_mask is None, "CogVideoX has none"
        length = encoder_hidden_states.shape[1]
        joint_BSD = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        heads = (attn.heads, -1)
        q, k, v = (
            layer(joint_BSD).unflatten(2, heads) for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        q = q if attn.norm_q is None else attn.norm_q(q)
        k = k if attn.norm_k is None else attn.norm_k(k)
        if image_rotary_emb is not None:
            q, k = (_rotated(x, image_rotary_emb, length) for x in (q, k))
        q, k, v = (self._all_tokens(x, length).transpose(1, 2) for x in (q, k, v))
        joint = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        joint_BSD = self._all_heads(joint, length).flatten(2)
        joint_BSD = attn.to_out[1](attn.to_out[0](joint_BSD))
        return joint_BSD[:, length:], joint_BSD[:, :length]

    def _all_tokens(self, x: Tensor, length: int) -> Tensor:
        """Take a share of the tokens [B, S, H, D] to all tokens of this process's heads."""
        share, rank = x.shape[2] // self._group.size(), self._group.rank()
        text = x[:, :length, rank * share : (rank + 1) * share]
        video = SeqAllToAllDim.apply(self._group, x[:, length:].contiguous(), 2, 1)
        return torch.cat([text, video], dim=1)

    def _all_heads(self, x: Tensor, length: int) -> Tensor:
        """Take all tokens of this process's heads to all heads of its share of the tokens.

        Every process is sent the text. What comes back of its gradient from all of them is added
        up: each has found a part, and the heads need the whole.
        """
        size = self._group.size()
        text = x[:, None, :length].expand(-1, size, -1, -1, -1)
        shares = torch.cat([text, x[:, length:].unflatten(1, (size, -1))], dim=2)
        return SeqAllToAllDim.apply(self._group, shares.flatten(1, 2), 1, 2)


def _rotated(x: Tensor, rotary: Any, length: int) -> Tensor:
    """Turn the video's tokens of [B, S, H, D], not the text's."""
    video: Any = apply_rotary_emb(x[:, length:].transpose(1, 2), tuple(rotary))
    return torch.cat([x[:, :length], video.transpose(1, 2)], dim=1)
