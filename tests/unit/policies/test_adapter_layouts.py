"""Adapters of other trainers: their names, their scales, and what is wrong with a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.adapters import (
    ORIGINAL,
    RANK,
    WRITERS,
    Write,
    assert_same_effect,
    comfy,
    everything,
    kohya,
    matrices,
    merged,
    policy,
)
from videorl.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["wan"]


SOME = {
    "all": list(ORIGINAL),
    "attention": [old for old in ORIGINAL if "attn" in old],
    "one matrix": ["blocks.0.cross_attn.k"],
    "no block": ["time_embedding.0", "head.head"],
}


@pytest.mark.parametrize("layers", SOME.values(), ids=SOME)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_other_trainers_names_with_any_of_the_layers(
    checkpoint: Path, tmp_path: Path, write: Write, layers: list[str]
) -> None:
    made = {old: both for old, both in matrices(checkpoint).items() if old in layers}
    save_file(write(made), tmp_path / "style.safetensors")
    expected = merged(checkpoint, made, {})
    found = policy(checkpoint, tmp_path / "style.safetensors", target_modules=everything())
    assert_same_effect(found, checkpoint, expected, tmp_path / "export")


@pytest.mark.parametrize("write", [comfy, kohya], ids=["comfy", "kohya"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_alpha_tensors_are_the_scale(
    checkpoint: Path, tmp_path: Path, write: Write, dtype: torch.dtype
) -> None:
    made = {old: both for old, both in matrices(checkpoint).items() if "cross" not in old}
    tensors, scales = write(made), {}
    for alpha, (old, name) in enumerate(zip(made, list(tensors)[::2], strict=True), start=1):
        layer = re.sub(r"\.lora_.*", "", name)
        tensors[f"{layer}.alpha"] = torch.tensor(float(alpha), dtype=dtype)
        scales[old] = alpha / RANK
    save_file(tensors, tmp_path / "style.safetensors")
    expected = merged(checkpoint, made, scales)
    found = policy(checkpoint, tmp_path, target_modules=everything())
    assert_same_effect(found, checkpoint, expected, tmp_path / "export")


def test_a_trainer_s_file_with_peft_s_configuration_beside_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    made = matrices(checkpoint)
    save_file(comfy(made), tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 12}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    expected = merged(checkpoint, made, dict.fromkeys(made, 3.0))
    found = policy(checkpoint, tmp_path, target_modules=everything())
    assert_same_effect(found, checkpoint, expected, tmp_path / "export")


def test_zero_differences_of_norms_are_no_reason_to_refuse(
    checkpoint: Path, tmp_path: Path
) -> None:
    made = matrices(checkpoint)
    zeros = {"diffusion_model.blocks.0.norm3.diff_b": torch.zeros(32)}
    save_file(comfy(made) | zeros, tmp_path / "a.safetensors")
    found = policy(checkpoint, tmp_path, target_modules=everything())
    assert_same_effect(found, checkpoint, merged(checkpoint, made, {}), tmp_path / "export")


Q = "diffusion_model.blocks.0.self_attn.q"


SPOILED: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "no up": ({f"{Q}.lora_B.weight": None}, r"blocks.0.self_attn.q lacks its matrix B \(up\)"),
    "alpha alone": ({f"{Q}x.alpha": torch.ones(())}, "lacks its matrix A .down. and B .up."),
    "nan": ({f"{Q}.lora_A.weight": torch.full((4, 32), torch.nan)}, "holds NaN"),
    "whole numbers": ({f"{Q}.lora_A.weight": torch.ones(4, 32, dtype=torch.int8)}, "torch.int8"),
    "ranks": ({f"{Q}.lora_A.weight": torch.ones(3, 32)}, "no matrices of one rank"),
    "alpha 0": ({f"{Q}.alpha": torch.zeros(())}, "alpha must be one number > 0"),
    "alphas": ({f"{Q}.alpha": torch.ones(2)}, "alpha must be one number > 0"),
    "dora": ({f"{Q}.dora_scale": torch.ones(32)}, "it holds DoRA"),
    "lokr": ({f"{Q}.lokr_w1": torch.ones(2, 2)}, "it holds LoKr"),
    "loha": ({f"{Q}.hada_w1_a": torch.ones(2, 2)}, "it holds LoHa"),
    "norm": ({"diffusion_model.blocks.0.norm3.diff": torch.ones(32)}, "differences of whole"),
    "bias": ({f"{Q}.diff_b": torch.ones(32)}, "differences of whole weights"),
    "text": ({"text_encoder.q_proj.weight": torch.ones(2, 2)}, "adapter of the text encoder"),
    "second expert": (
        {
            "transformer_2.blocks.0.attn1.to_q.lora_A.weight": torch.ones(4, 32),
            "transformer_2.blocks.0.attn1.to_q.lora_B.weight": torch.ones(32, 4),
        },
        "transformer_2.blocks.0.attn1.to_q",
    ),
    "another model": (
        {
            "diffusion_model.double_blocks.3.img_attn.qkv.lora_A.weight": torch.ones(4, 32),
            "diffusion_model.double_blocks.3.img_attn.qkv.lora_B.weight": torch.ones(32, 4),
        },
        "double_blocks.3.img_attn.qkv",
    ),
    "more blocks": (
        {
            "diffusion_model.blocks.7.ffn.0.lora_A.weight": torch.ones(4, 32),
            "diffusion_model.blocks.7.ffn.0.lora_B.weight": torch.ones(32, 4),
        },
        "1 of its 15 layers are not in this transformer.*blocks.7.ffn.0",
    ),
    "two adapters": (
        {
            "diffusion_model.blocks.0.ffn.2.lora_A.default.weight": torch.ones(4, 32),
            "diffusion_model.blocks.0.ffn.2.lora_B.default.weight": torch.ones(32, 4),
        },
        "second adapter of this layer",
    ),
    "wider": (
        {f"{Q}.lora_A.weight": torch.ones(4, 48)},
        r"lora_A of blocks.0.attn1.to_q .* is \[4, 48\], this model needs \[4, 32\]",
    ),
}


@pytest.mark.parametrize(("changes", "reason"), SPOILED.values(), ids=SPOILED)
def test_a_spoiled_file_is_refused_for_its_true_reason(
    checkpoint: Path, tmp_path: Path, changes: dict[str, Tensor | None], reason: str
) -> None:
    tensors = {**comfy(matrices(checkpoint)), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=reason) as caught:
        policy(checkpoint, tmp_path, target_modules=everything())
    assert "policy.lora.initial" in str(caught.value)


def test_what_is_no_adapter_says_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("run/aligned", "full/transformer", "pickles", "empty", "several"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pickles/pytorch_lora_weights.bin").write_bytes(b"x")
    for name in ("first", "second"):
        save_file({"x": torch.ones(1)}, tmp_path / f"several/{name}.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0")
    for source, reason in {
        "run": r"give .*run/aligned",
        "full": "whole transformer",
        "pickles": "only pickles",
        "empty": "no file",
        "several": "2 adapters, first.safetensors, second.safetensors: give the file",
        "cut.safetensors": "not a whole safetensors file",
        "pickles/pytorch_lora_weights.bin": "is a pickle",
        "nowhere": "there is no file or folder",
    }.items():
        with pytest.raises(CheckpointError, match=reason):
            policy(checkpoint, tmp_path / source)


def test_a_layer_outside_of_the_targets_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    save_file(comfy(matrices(checkpoint)), tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match=r"target_modules, first: .*; give the target_modules"):
        policy(checkpoint, tmp_path)


def test_hub_ids_without_a_network(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--style"
    (repository / "refs").mkdir(parents=True)
    commit = "0" * 40
    (repository / "refs/main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    made = matrices(checkpoint)
    save_file(comfy(made), snapshot / "own_name.safetensors")
    expected = merged(checkpoint, made, {})
    for source in ("someone/style", "someone/style/own_name.safetensors"):
        found = policy(checkpoint, source, target_modules=everything())
        assert_same_effect(found, checkpoint, expected, tmp_path / "export")
    for source in ("someone/other", "someone/style/absent.safetensors"):
        with pytest.raises(CheckpointError, match=r"policy.lora.initial: someone/.*HF_HUB_OFFLINE"):
            policy(checkpoint, source)
    save_file(comfy(made), snapshot / "second.safetensors")
    with pytest.raises(CheckpointError, match=r"2 safetensors files .*own_name.*name one"):
        policy(checkpoint, "someone/style")
