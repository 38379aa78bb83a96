"""Adapters of a tiny Wan transformer in the layouts of several trainers, for tests.

What is right is computed by peft's and diffusers' own models, never by ours.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import peft
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from torch import Tensor

from tests.tiny import tiny_policy, tiny_sampling
from videorl.embedding import plain
from videorl.policies import load_policy
from videorl.policies.pipeline_policy import PipelinePolicy

LEARNER = frozenset({"transformer"})
RANK = 4
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
ORIGINAL = {
    **{f"blocks.0.self_attn.{old}": f"blocks.0.attn1.{new}" for old, new in ATTENTION.items()},
    **{f"blocks.0.cross_attn.{old}": f"blocks.0.attn2.{new}" for old, new in ATTENTION.items()},
    "blocks.0.ffn.0": "blocks.0.ffn.net.0.proj",
    "blocks.0.ffn.2": "blocks.0.ffn.net.2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
}
"""Names of Wan's own code -> those of diffusers, written down by hand."""


@cache
def read_once(checkpoint: Path) -> WanTransformer3DModel:
    """Read a checkpoint's transformer; not to be changed."""
    return WanTransformer3DModel.from_pretrained(checkpoint / "transformer").eval()


def stock(checkpoint: Path) -> WanTransformer3DModel:
    """Return the transformer of a checkpoint, as diffusers reads it."""
    return copy.deepcopy(read_once(checkpoint))


def inputs() -> dict[str, Any]:
    """Return what two videos give to the transformer."""
    draw = torch.Generator().manual_seed(3)
    return {
        "hidden_states": torch.randn(2, 12, 3, 4, 4, generator=draw),
        "encoder_hidden_states": torch.randn(2, 16, 16, generator=draw),
        "timestep": torch.tensor([200.0, 700.0]),
    }


@torch.no_grad()
def predicted(model: Any) -> Tensor:
    """Return what a transformer makes of `inputs`."""
    return model(**inputs(), return_dict=False)[0]


def policy(checkpoint: Path, source: Path | str, **lora: Any) -> PipelinePolicy:
    """Load a learner's policy that starts from an adapter; `lora` are changes of `policy.lora`."""
    config = tiny_policy(checkpoint, rank=RANK, initial=str(source))
    config.lora.target_modules = TARGETS
    for name, value in lora.items():
        setattr(config.lora, name, value)
    made = load_policy(config, tiny_sampling(), parts=LEARNER, trainable=True)
    assert isinstance(made, PipelinePolicy)
    return made


def assert_same_effect(
    made: PipelinePolicy, checkpoint: Path, expected: Tensor, folder: Path
) -> None:
    """The policy, its reference, and stock diffusers with its export predict `expected`."""
    given = inputs()
    for role in ("policy", "reference"):
        found = made.predict(
            given["hidden_states"],
            given["timestep"] / 1000,
            [plain(rows) for rows in given["encoder_hidden_states"]],
            role,
        )
        torch.testing.assert_close(found, expected, atol=5e-4, rtol=1e-3)
    made.export(folder)
    pipeline: Any = WanPipeline(None, None, None, None, stock(checkpoint))  # pyright: ignore
    pipeline.load_lora_weights(str(folder))
    torch.testing.assert_close(predicted(pipeline.transformer), expected, atol=5e-4, rtol=1e-3)


def randomised(model: Any, seed: int = 5) -> Any:
    """Give every trained tensor of a peft model a value."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter += torch.randn(parameter.shape, generator=draw) * 0.2
    return model


def save_peft(checkpoint: Path, folder: Path, **config: Any) -> Tensor:
    """Write an adapter with peft; return what peft predicts once it has opened it."""
    config = {"r": RANK, "lora_alpha": 8, "target_modules": TARGETS, **config}
    randomised(peft.get_peft_model(stock(checkpoint), peft.LoraConfig(**config))).save_pretrained(
        folder
    )
    return predicted(peft.PeftModel.from_pretrained(stock(checkpoint), str(folder)))


def everything() -> list[str]:
    """Return `target_modules` of every linear layer."""
    linear = ["time_embedder.linear_1", "time_embedder.linear_2", "time_proj", "proj_out"]
    return [*TARGETS, *linear, "text_embedder.linear_1", "text_embedder.linear_2"]


def matrices(checkpoint: Path, rank: int = RANK) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A and B for every layer of `ORIGINAL`, by original name."""
    draw, modules = torch.Generator().manual_seed(7), dict(stock(checkpoint).named_modules())
    made = {}
    for old, new in ORIGINAL.items():
        outputs, inputs = modules[new].weight.shape
        made[old] = tuple(
            torch.randn(shape, generator=draw) * 0.2 for shape in ((rank, inputs), (outputs, rank))
        )
    return made


def merged(
    checkpoint: Path, layers: Mapping[str, tuple[Tensor, Tensor]], scales: Mapping[str, float]
) -> Tensor:
    """Return what the model predicts once the adapters are added to its weights."""
    model = stock(checkpoint)
    modules = dict(model.named_modules())
    with torch.no_grad():
        for old, (a, b) in layers.items():
            modules[ORIGINAL[old]].weight += scales.get(old, 1.0) * b @ a
    return predicted(model)


Write = Callable[[Mapping[str, tuple[Tensor, Tensor]]], dict[str, Tensor]]


def comfy(layers: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    return named(layers, lambda old: f"diffusion_model.{old}", "lora_A.weight", "lora_B.weight")


def kohya(layers: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    def flat(old: str) -> str:
        return f"lora_unet_{old.replace('.', '_')}"

    return named(layers, flat, "lora_down.weight", "lora_up.weight")


def diffsynth(layers: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    return named(layers, str, "lora_A.default.weight", "lora_B.default.weight")


def old_diffusers(layers: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    def new(old: str) -> str:
        return f"transformer.{ORIGINAL[old]}"

    return named(layers, new, "lora.down.weight", "lora.up.weight")


def named(
    layers: Mapping[str, tuple[Tensor, Tensor]], name: Callable[[str], str], down: str, up: str
) -> dict[str, Tensor]:
    return {
        f"{name(old)}.{part}": tensor.contiguous()
        for old, both in layers.items()
        for part, tensor in zip((down, up), both, strict=True)
    }


WRITERS: dict[str, Write] = {
    "comfy": comfy,
    "kohya": kohya,
    "diffsynth": diffsynth,
    "old diffusers": old_diffusers,
}
