"""Counts of a whole transformer from those of a few blocks, of one kind or of two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from videorl.planning.linear import from_few

MOCHI: Mapping[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8, "text_embed_dim": 16}
HUNYUAN: Mapping[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_refiner_layers": 1,
    "text_embed_dim": 16,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (2, 2, 4),
}


@pytest.mark.parametrize(
    ("name", "settings", "blocks"),
    [
        ("HunyuanVideoTransformer3DModel", HUNYUAN, {"num_layers": 5, "num_single_layers": 7}),
        ("HunyuanVideoTransformer3DModel", HUNYUAN, {"num_layers": 4, "num_single_layers": 0}),
        ("MochiTransformer3DModel", MOCHI, {"num_layers": 6}),  # its last block is another
    ],
)
def test_the_count_of_a_few_blocks_gives_that_of_all(
    name: str, settings: Mapping[str, Any], blocks: dict[str, int]
) -> None:
    import diffusers

    def parameters(some: Mapping[str, int]) -> tuple[float, ...]:
        with torch.device("meta"):
            model = getattr(diffusers, name)(**settings, **some)
        return (float(model.num_parameters()),)

    asked: list[Mapping[str, int]] = []

    def measure(some: Mapping[str, int]) -> tuple[float, ...]:
        asked.append(some)
        return parameters(some)

    assert from_few(blocks, measure)(blocks) == parameters(blocks)
    assert all(max(some.values()) <= 3 for some in asked)
    assert len(asked) == 1 + sum(number > 0 for number in blocks.values())
