"""Adapters of peft and diffusers keep their effect in the policy and its export, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
from diffusers import WanPipeline, WanTransformer3DModel

from tests.adapters import (
    RANK,
    TARGETS,
    assert_same_effect,
    policy,
    predicted,
    randomised,
    save_peft,
    stock,
)
from videorl.errors import CheckpointError


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["wan"]


PLAIN: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "alpha above the recipe's": {"lora_alpha": 64},
    "alpha no whole number": {"lora_alpha": 0.5},
    "ranks by layer": {"rank_pattern": {"to_q": 2, "blocks.0.attn2.to_k": 1}},
    "alphas by layer": {"alpha_pattern": {"attn1.to_q": 1, "ffn.*": 32}},
    "patterns and rslora": {
        "rank_pattern": {"to_v": 1},
        "alpha_pattern": {"to_v": 3},
        "use_rslora": True,
    },
    "few layers": {"target_modules": ["to_q"]},
    "all but some": {"target_modules": TARGETS, "exclude_modules": ["blocks.0.attn2.to_q"]},
    "a regular expression": {"target_modules": r".*attn1\.to_[qk]"},
    "some blocks": {"layers_to_transform": [0], "layers_pattern": "blocks"},
    "dropout": {"lora_dropout": 0.5},
    "fan in, fan out": {"fan_in_fan_out": True},
    "drawn as a gaussian": {"init_lora_weights": "gaussian"},
    "biases that were not trained": {"lora_bias": False, "bias": "none"},
}


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "dora": ({"use_dora": True}, "DoRA"),
    "lora_bias": ({"lora_bias": True}, "trained biases"),
    "modules_to_save": ({"modules_to_save": ["proj_out"]}, "whole layers"),
    "pissa": ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
    "olora": ({"init_lora_weights": "olora"}, "init_lora_weights='olora'"),
}


@pytest.mark.parametrize("config", PLAIN.values(), ids=PLAIN)
def test_a_peft_folder_keeps_its_effect(
    checkpoint: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    expected = save_peft(checkpoint, tmp_path / "peft", **config)
    assert (expected - predicted(stock(checkpoint))).abs().max() > 1e-3
    made = policy(checkpoint, tmp_path / "peft")
    assert_same_effect(made, checkpoint, expected, tmp_path / "export")


@pytest.mark.parametrize(("config", "reason"), OTHERS.values(), ids=OTHERS)
def test_what_is_not_plain_lora_is_refused(
    checkpoint: Path, tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    save_peft(checkpoint, tmp_path / "peft", **config)
    with pytest.raises(CheckpointError, match=reason):
        policy(checkpoint, tmp_path / "peft")


def test_an_adapter_that_diffusers_wrote_with_rslora_keeps_its_effect(
    checkpoint: Path, tmp_path: Path
) -> None:
    model = stock(checkpoint)
    config = peft.LoraConfig(r=RANK, lora_alpha=8, target_modules=TARGETS, use_rslora=True)
    model.add_adapter(config, "style")
    randomised(model)
    names = {"use_rslora": True, "r": RANK, "lora_alpha": 8, "target_modules": TARGETS}
    layers: dict[str, Any] = peft.get_peft_model_state_dict(model, adapter_name="style")
    WanPipeline.save_lora_weights(
        tmp_path / "style",
        transformer_lora_layers=layers,
        transformer_lora_adapter_metadata=names,
    )
    made = policy(checkpoint, tmp_path / "style")
    assert_same_effect(made, checkpoint, predicted(model), tmp_path / "export")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ('{"r": 4}', "lora_alpha in its configuration must be > 0, got None"),
        ('{"r": "4", "lora_alpha": 8}', "r in its configuration must be > 0, got '4'"),
        ('{"r": 8, "lora_alpha": 8}', "matrices have rank 4, its configuration says 8"),
        ('{"r": 4, "lora_alpha": 8, "peft_type": "LOHA"}', "peft_type=LOHA"),
        ('{"r": 4, "lora_alpha": 8, "use_new_trick": true}', "use_new_trick=True"),
        ('{"r": 4, "lora_alpha": 8, "rank_pattern": {"(": 2}}', "a pattern .* is broken"),
        ('{"r": 4, "lora_alpha": 8, "alpha_pattern": 3}', "alpha_pattern must be a table"),
        (None, "no adapter_config.json beside it"),
    ],
)
def test_a_damaged_configuration_is_refused(
    checkpoint: Path, tmp_path: Path, content: str | None, reason: str
) -> None:
    save_peft(checkpoint, tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    if content is not None:
        (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=reason):
        policy(checkpoint, tmp_path)


def test_an_export_that_means_something_else_is_not_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_peft(checkpoint, tmp_path / "peft")
    made = policy(checkpoint, tmp_path / "peft")
    plain = WanPipeline.save_lora_weights

    def weaker(*args: Any, transformer_lora_adapter_metadata: dict[str, Any], **named: Any) -> None:
        changed = {**transformer_lora_adapter_metadata, "lora_alpha": 4}
        plain(*args, transformer_lora_adapter_metadata=changed, **named)

    monkeypatch.setattr(WanPipeline, "save_lora_weights", weaker)
    with pytest.raises(CheckpointError, match="stock diffusers computes other videos"):
        made.export(tmp_path / "export")
    assert list((tmp_path / "export").iterdir()) == []
    live = made.trainable_module()
    assert isinstance(live, WanTransformer3DModel)
    assert set(live.peft_config) == {"policy", "reference"}
    monkeypatch.undo()
    made.export(tmp_path / "export")
    assert [path.name for path in (tmp_path / "export").iterdir()] == [
        "pytorch_lora_weights.safetensors"
    ]
