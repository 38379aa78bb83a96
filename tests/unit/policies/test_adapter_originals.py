"""Adapters under their authors' names: stock diffusers reads the same effect from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from accelerate import init_empty_weights
from diffusers import (
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LTXPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.tiny import TINY
from videorl.errors import CheckpointError
from videorl.policies.adapter_layouts import LayerAdapter
from videorl.policies.adapter_originals import fused_layer
from videorl.policies.adapter_write import _header, write_adapter
from videorl.policies.defaults import DEFAULTS
from videorl.settings.model import LoraConfig

RANK = 2


def hunyuan_video() -> Any:
    """Of the published width, which diffusers' converter counts on, with two blocks."""
    with init_empty_weights():
        made = HunyuanVideoTransformer3DModel(
            num_layers=1, num_single_layers=1, num_refiner_layers=1
        )
    return made.to_empty(device="cpu")  # nobody reads its 2 GB, which the system never hands out


def ltx_video(folder: Path) -> Any:
    return LTXPipeline.from_pretrained(TINY["ltx_video"].save(folder / "ltx")).transformer


def wan_i2v(folder: Path) -> Any:
    saved = TINY["wan_i2v"].save(folder / "wan")
    return WanTransformer3DModel.from_pretrained(saved, subfolder="transformer")


def adapters(model: Any, family: str, *extra: str) -> dict[str, LayerAdapter]:
    """Return random adapters of all layers that a recipe of the family adapts, of two strengths."""
    targets = DEFAULTS[family].settings.get("policy.lora.target_modules")
    ends = tuple(f".{name}" for name in [*(targets or LoraConfig().target_modules), *extra])
    draw = torch.Generator().manual_seed(0)
    found = dict[str, LayerAdapter]()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and f".{name}".endswith(ends):
            a = torch.randn(RANK, module.in_features, generator=draw)
            b = torch.randn(module.out_features, RANK, generator=draw)
            found[name] = LayerAdapter(a, b, 0.5 if name.endswith("q") else 2.0)
    return found


def save(layers: dict[str, LayerAdapter], file: Path) -> Path:
    """Write them in the layout of diffusers."""
    tensors = dict[str, Tensor]()
    for name, layer in layers.items():
        tensors[f"transformer.{name}.lora_A.weight"] = layer.a.clone()
        tensors[f"transformer.{name}.lora_B.weight"] = layer.b.clone()
    save_file(tensors, file, _header(layers))
    return file


def probe(num_features: int) -> Tensor:
    return torch.randn(num_features, 3, generator=torch.Generator().manual_seed(7))


def effects(layers: dict[str, LayerAdapter]) -> dict[str, Tensor]:
    """Return what every adapter makes of a few vectors."""
    return {
        name: layer.scale * layer.b @ (layer.a @ probe(layer.a.shape[1]))
        for name, layer in layers.items()
    }


def opened(pipeline: Any, file: Path) -> dict[str, Tensor]:
    """Return the effect of a file that stock diffusers opens."""
    pipeline.load_lora_weights(str(file), adapter_name="default")
    kind = peft.tuners.lora.LoraLayer
    named: Any = pipeline.transformer.named_modules()
    layers = {name: module for name, module in named if isinstance(module, kind)}
    found = dict[str, Tensor]()
    for name, layer in layers.items():
        a, b = (getattr(layer, part)["default"].weight.detach() for part in ("lora_A", "lora_B"))
        found[name] = layer.scaling["default"] * b @ (a @ probe(a.shape[1]))
    return found


def test_hunyuan_video(tmp_path: Path) -> None:
    model, out = hunyuan_video(), tmp_path / "out.safetensors"
    layers = adapters(model, "hunyuan_video")
    # Of the refiner's queries, keys and values diffusers' converter splits A too, see below.
    layers = {n: one for n, one in layers.items() if "refiner" not in n or ".to_out." in n}
    assert len(layers) > 15
    write_adapter(save(layers, tmp_path / "a.safetensors"), out, "comfyui")
    names = {name.removeprefix("diffusion_model.").split(".lora")[0] for name in load_file(out)}
    assert names > {"double_blocks.0.img_attn_qkv", "double_blocks.0.txt_mlp.fc2"}
    assert names > {"single_blocks.0.linear1", "single_blocks.0.linear2"}
    parts: dict[str, Any] = dict.fromkeys(
        ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "vae", "scheduler")
    )
    found = opened(HunyuanVideoPipeline(**parts, transformer=model), out)
    torch.testing.assert_close(found, effects(layers), atol=1e-2, rtol=1e-4)


def test_what_is_one_layer_of_hunyuan_video_has_the_rows_of_its_parts(tmp_path: Path) -> None:
    layers = adapters(hunyuan_video(), "hunyuan_video")
    place = "context_embedder.token_refiner.refiner_blocks.0.attn"
    three = {name: layers[f"{place}.{name}"] for name in ("to_q", "to_k", "to_v")}
    source = save({f"{place}.{n}": one for n, one in three.items()}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="is no linear layer of a model"):
        write_adapter(source, tmp_path / "out.safetensors", "comfyui")  # of HunyuanVideo, or of 1.5
    block = "single_transformer_blocks.0"
    many = {f"{place}.{n}": one for n, one in three.items()} | {
        name: one for name, one in layers.items() if name.startswith(block)
    }
    write_adapter(save(many, source), tmp_path / "out.safetensors", "comfyui")
    tensors = load_file(tmp_path / "out.safetensors")
    name = "diffusion_model.txt_in.individual_token_refiner.blocks.0.self_attn_qkv"
    a, b = (tensors[f"{name}.{part}.weight"] for part in ("lora_A", "lora_B"))
    found = b @ (a @ probe(a.shape[1]))
    expected = torch.cat([*effects(three).values()])
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-4)
    assert not any(name.endswith("alpha") for name in tensors)
    del many[f"{block}.attn.to_k"]
    with pytest.raises(CheckpointError, match=r"linear1 is one layer.* not attn\.to_k: adapt all"):
        write_adapter(save(many, source), tmp_path / "out.safetensors", "comfyui")


def test_parts_by_hand() -> None:
    first = LayerAdapter(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]), 2.0)
    second = LayerAdapter(torch.tensor([[5.0, 7.0]]), torch.tensor([[1.0], [-1.0]]), 1.0)
    whole = fused_layer([first, second])
    assert whole.b.tolist() == [[6.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    assert (whole.b @ whole.a).tolist() == [[6.0, 12.0], [5.0, 7.0], [-5.0, -7.0]]
    assert (whole.rank, whole.scale) == (2, 1.0)


def test_ltx_video(tmp_path: Path) -> None:
    model, out = ltx_video(tmp_path), tmp_path / "out.safetensors"
    layers = adapters(model, "ltx_video")
    write_adapter(save(layers, tmp_path / "a.safetensors"), out, "comfyui")
    assert "diffusion_model.transformer_blocks.0.attn2.to_q.lora_A.weight" in load_file(out)
    pipeline: Any = LTXPipeline.from_pretrained(tmp_path / "ltx", transformer=model)
    torch.testing.assert_close(opened(pipeline, out), effects(layers), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["comfyui", "kohya"])
def test_layers_that_read_a_picture_are_wans_too(tmp_path: Path, layout: str) -> None:
    model, out = wan_i2v(tmp_path), tmp_path / "out.safetensors"
    layers = adapters(model, "wan_i2v", "add_k_proj", "add_v_proj")
    write_adapter(save(layers, tmp_path / "a.safetensors"), out, layout)
    assert any("k_img" in name for name in load_file(out))
    pipeline: Any = WanPipeline(None, None, None, None, model)  # pyright: ignore
    torch.testing.assert_close(opened(pipeline, out), effects(layers), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("layers", "layout"),
    [
        (["transformer_blocks.0.attn1.to_q", "transformer_blocks.0.ff.net.2"], "comfyui"),  # Mochi
        (["transformer_blocks.0.attn.add_q_proj"], "comfyui"),  # HunyuanVideo 1.5
        (["spatial_blocks.0.attn.qkv"], "comfyui"),  # Open-Sora
        (["transformer_blocks.0.attn2.to_q", "proj_in"], "comfyui"),  # LTX-Video, another layer
        (["transformer_blocks.0.attn2.to_q"], "kohya"),
        (["single_transformer_blocks.0.attn.to_q"], "kohya"),
    ],
)
def test_layouts_that_could_not_be_checked_are_refused(
    tmp_path: Path, layers: list[str], layout: str
) -> None:
    made = LayerAdapter(torch.ones(1, 2), torch.ones(2, 1), 1.0)
    source = save(dict.fromkeys(layers, made), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"use --format diffusers"):
        write_adapter(source, tmp_path / "out.safetensors", layout)
    assert not (tmp_path / "out.safetensors").exists()
