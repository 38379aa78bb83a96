"""What the layers of Wan's transformer are called in diffusers and in its authors' own code.

diffusers has only the way from the original names, for the adapters that it opens. Files that are
written in another layout need the way back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

FORMATS = ("comfyui", "kohya", "diffusers")
"""Layouts that an adapter can be written in, see `adapter_write`."""

_IN_BLOCKS = {
    **{
        f"{new}.{layer}": f"{old}.{letter}"
        for new, old in (("attn1", "self_attn"), ("attn2", "cross_attn"))
        for layer, letter in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"))
    },
    "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
_OTHERS = {
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "proj_out": "head.head",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def original_name(layer: str) -> str | None:
    """Return what Wan's own code calls a linear layer of diffusers; None = Wan has no such layer.

    Args:
        layer: Such as `blocks.0.attn1.to_q`, which is `blocks.0.self_attn.q`.
    """
    if match := _BLOCK.fullmatch(layer):
        inner = _IN_BLOCKS.get(match[2])
        return inner and f"blocks.{match[1]}.{inner}"
    return _OTHERS.get(layer)


def wan_layers(blocks: Iterable[int]) -> set[str]:
    """Return the names in diffusers of a Wan transformer's linear layers, of these blocks only.

    Two of each block are of models that read the features of a picture.
    """
    return {*_OTHERS, *(f"blocks.{n}.{name}" for n in blocks for name in _IN_BLOCKS)}
