"""Written adapters have the names of their layout, and the effect of what they were made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.adapters import ORIGINAL, RANK, TARGETS, comfy, kohya, matrices, randomised, stock
from tests.adapters import old_diffusers as diffusers_names
from videorl.errors import CheckpointError, ConfigError
from videorl.policies import adapter_originals
from videorl.policies.adapter_names import FORMATS, original_name, wan_layers
from videorl.policies.adapter_write import write_adapter

PATTERNS = {
    "r": RANK,
    "lora_alpha": 3,
    "target_modules": TARGETS,
    "rank_pattern": {"to_q": 2, "blocks.0.attn2.to_k": 1},
    "alpha_pattern": {"attn1.to_q": 1, "ffn.net.2": RANK},
}


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["wan"]


def effect(model: Any) -> dict[str, Tensor]:
    """Return what peft adds to each layer."""
    layers: list[tuple[str, Any]] = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    ]
    return {name: layer.get_delta_weight("default") for name, layer in layers}


def opened(checkpoint: Path, file: Path) -> dict[str, Tensor]:
    """Return the effect of a file that stock diffusers opens."""
    pipeline: Any = WanPipeline(None, None, None, None, stock(checkpoint))  # pyright: ignore
    pipeline.load_lora_weights(str(file), adapter_name="default")
    return effect(pipeline.transformer)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("rslora", [False, True])
def test_stock_diffusers_opens_every_layout_with_the_same_effect(
    checkpoint: Path, tmp_path: Path, layout: str, *, rslora: bool
) -> None:
    config = {**PATTERNS, "use_rslora": rslora}
    model: Any = stock(checkpoint)
    model.add_adapter(peft.LoraConfig(**config), "default")
    layers: dict[str, Any] = peft.get_peft_model_state_dict(randomised(model))
    WanPipeline.save_lora_weights(
        tmp_path, transformer_lora_layers=layers, transformer_lora_adapter_metadata=config
    )
    source = opened(checkpoint, tmp_path / "pytorch_lora_weights.safetensors")
    written = write_adapter(tmp_path, tmp_path / "out.safetensors", layout)
    assert {adapter.rank for adapter in written.values()} == {1, 2, RANK}
    found = opened(checkpoint, tmp_path / "out.safetensors")
    torch.testing.assert_close(found, source, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found, effect(model), atol=1e-6, rtol=1e-6)


def test_names_are_those_of_the_other_programs(checkpoint: Path, tmp_path: Path) -> None:
    made = matrices(checkpoint)
    save_file(diffusers_names(made), tmp_path / "a.safetensors")
    one = torch.tensor(float(RANK))
    flat = {f"lora_unet_{old.replace('.', '_')}.alpha": one for old in ORIGINAL}
    for layout, expected in {"comfyui": comfy(made), "kohya": kohya(made) | flat}.items():
        write_adapter(tmp_path / "a.safetensors", tmp_path / "out.safetensors", layout)
        torch.testing.assert_close(load_file(tmp_path / "out.safetensors"), expected)


def test_every_linear_layer_of_wan_has_its_original_name(checkpoint: Path) -> None:
    modules = stock(checkpoint).named_modules()
    linear = {name for name, module in modules if isinstance(module, nn.Linear)}
    found = wan_layers(range(len(stock(checkpoint).blocks)))
    assert {name for name in found if ".add_" not in name} == linear
    assert [original_name(layer) for layer in ORIGINAL.values()] == list(ORIGINAL)
    assert original_name("blocks.0.attn3.to_q") is original_name("patch_embedding") is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layouts_can_be_turned_into_each_other(
    checkpoint: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    made = {old: both for old, both in matrices(checkpoint).items() if "self" not in old}
    tensors = {name: tensor.to(dtype) for name, tensor in comfy(made).items()}
    tensors["diffusion_model.head.head.alpha"] = torch.tensor(3.0)
    save_file(tensors, tmp_path / "0.safetensors")
    steps = ("kohya", "diffusers", "kohya", "comfyui")
    for number, layout in enumerate(steps):
        source = tmp_path / f"{number}.safetensors"
        write_adapter(source, tmp_path / f"{number + 1}.safetensors", layout)
    torch.testing.assert_close(load_file(tmp_path / "4.safetensors"), tensors, atol=0, rtol=0)


def test_what_wan_lacks_is_written_for_diffusers_only(tmp_path: Path) -> None:
    layer = "transformer.transformer_blocks.0.attn1.to_q"
    shapes = {"lora_A": (2, 8), "lora_B": (8, 2)}
    tensors = {f"{layer}.{name}.weight": torch.ones(shape) for name, shape in shapes.items()}
    source, out = tmp_path / "a.safetensors", tmp_path / "out.safetensors"
    save_file(tensors, source)
    for layout in ("comfyui", "kohya"):
        with pytest.raises(CheckpointError, match=f"the layout {layout} is written for.* Wan"):
            write_adapter(source, out, layout)
    assert not out.exists()
    write_adapter(source, out, "diffusers")
    assert load_file(out).keys() == tensors.keys()
    save_file({f"diffusion_model.x.{n}": t for n, t in tensors.items()}, source)
    with pytest.raises(CheckpointError, match="cannot be exported as an adapter of Wan"):
        write_adapter(source, out, "diffusers")


def test_a_file_is_written_whole_and_right_or_not_at_all(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "a.safetensors", tmp_path / "out.safetensors"
    save_file(diffusers_names(matrices(checkpoint)), source)
    with pytest.raises(ConfigError, match="one of comfyui, kohya, diffusers, got ckpt"):
        write_adapter(source, out, "ckpt")
    with pytest.raises(ConfigError, match="is the adapter itself"):
        write_adapter(source, source, "comfyui")
    out.write_text("older")

    def crossed(layer: str) -> str | None:
        letters = {"to_q": "to_k", "to_k": "to_q"}
        start, _, last = layer.rpartition(".")
        return original_name(f"{start}.{letters.get(last, last)}" if start else layer)

    monkeypatch.setattr(adapter_originals, "original_name", crossed)
    with pytest.raises(CheckpointError, match=r"something else in 4 layers, first: blocks.0.attn1"):
        write_adapter(source, out, "comfyui")
    assert out.read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, out.name]
    monkeypatch.undo()
    write_adapter(source, out, "comfyui")
    assert load_file(out)
