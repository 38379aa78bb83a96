"""Code that looks at its masks, on tensors without numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException

from videorl.planning.counting import count, make_fake, without_numbers
from videorl.planning.known_values import KnownValues


def test_masks_decide_how_many_tokens_there_are() -> None:
    with without_numbers():
        hidden = torch.empty(6, 8)  # has no numbers
        mask = torch.ones(6, dtype=torch.bool)
        mask[4:] = False
        assert hidden[mask].shape == (4, 8)
        assert hidden[~mask].shape == (2, 8)
        assert hidden[torch.nonzero(mask).flatten()].shape == (4, 8)
        assert hidden[: int(mask.sum())].shape == (4, 8)
        assert bool(torch.all(torch.zeros(3) == 0))


def test_what_is_written_to_a_mask_is_known_no_longer() -> None:
    with without_numbers():
        mask = torch.zeros(4, dtype=torch.bool)
        assert not bool(mask.any())
        mask[2:].copy_(torch.empty(2) > 0)
        with pytest.raises(DataDependentOutputException):
            bool(mask.any())


def test_large_masks_are_not_filled_to_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask of every pair of tokens has gigabytes: it is made of shapes alone."""
    computed, numbers = KnownValues._computed, list[int]()

    def compute(values: KnownValues, *given: Any) -> Any:
        found = computed(values, *given)
        numbers.append(found.numel() if isinstance(found, Tensor) else 1)
        return found

    monkeypatch.setattr(KnownValues, "_computed", compute)
    with without_numbers():
        row = torch.ones(1, 6000, dtype=torch.bool)
        every = row.repeat(6000, 1)
        assert every.shape == (6000, 6000)
        assert bool(row.all())
        with pytest.raises(DataDependentOutputException):
            bool(every.all())
    assert numbers and max(numbers) == 6000


BATCH = 2


def text(*names: str) -> dict[str, Tensor]:
    """Return embeddings of 6 tokens and masks that hide the last two."""
    mask = torch.cat([torch.ones(BATCH, 4), torch.zeros(BATCH, 2)], 1)
    found = {f"encoder_hidden_states{name}": torch.empty(BATCH, 6, 16) for name in names}
    return found | {f"encoder_attention_mask{name}": mask for name in names}


@pytest.mark.parametrize(
    ("name", "sizes", "inputs"),
    [
        (
            "HunyuanVideo15Transformer3DModel",
            {
                "out_channels": 4,
                "text_embed_2_dim": 16,
                "image_embed_dim": 8,
                "num_refiner_layers": 1,
                "rope_axes_dim": (2, 2, 4),
            },
            lambda: text("", "_2") | {"image_embeds": torch.zeros(BATCH, 5, 8)},
        ),
        (
            "MochiTransformer3DModel",
            {"time_embed_dim": 4, "pooled_projection_dim": 8},
            lambda: text(""),
        ),
    ],
)
def test_transformers_that_look_at_their_masks_are_counted(
    name: str, sizes: dict[str, Any], inputs: Callable[[], dict[str, Tensor]]
) -> None:
    """Forward and backward, as the learner's; both choose tokens by their masks."""
    import diffusers

    shape = {"in_channels": 4, "num_attention_heads": 2, "attention_head_dim": 8}
    with torch.device("meta"):
        model = getattr(diffusers, name)(num_layers=1, text_embed_dim=16, **shape, **sizes)
    with without_numbers():
        make_fake([model])
        latents = torch.zeros(BATCH, 4, 2, 4, 4)
        given = inputs()

        def work() -> None:
            predicted = model(latents, timestep=torch.ones(BATCH), return_dict=False, **given)[0]
            assert predicted.shape == latents.shape
            predicted.sum().backward()

        assert count(work).flops > 0
