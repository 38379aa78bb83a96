"""Checkpoints of the image rewards: real sizes, and everything that can be wrong with one."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
import torch
from safetensors.torch import load_file, save_file

from videorl import rewards
from videorl.errors import CheckpointError, ConfigError
from videorl.rewards.checkpoints import empty_parameters
from videorl.rewards.images.clip_preference import ClipPreference
from videorl.rewards.images.hps_v2 import open_clip_shapes
from videorl.rewards.images.image_reward_network import ImageRewardNetwork
from videorl.rewards.images.laion_aesthetic import AestheticNetwork
from videorl.rewards.images.score_head import ScoreHead
from videorl.rewards.per_frame import PerFrameReward

Load: TypeAlias = Callable[..., PerFrameReward]


@pytest.mark.parametrize(
    ("name", "file", "entry", "missing"),
    [
        ("laion_aesthetic", "sac+logos+ava1-l14-linearMSE.pth", None, "layers.4.bias"),
        ("hps_v2", "HPS_v2.1_compressed.pt", "state_dict", "visual.ln_post.bias"),
        ("image_reward", "ImageReward.pt", None, "blip.visual_encoder.blocks.1.attn.qkv.bias"),
        ("image_reward", "ImageReward.pt", None, "mlp.layers.7.weight"),
    ],
)
def test_incomplete_or_misshapen_checkpoints_are_refused_by_published_names(
    load_tiny: Load,
    image_models: SimpleNamespace,
    tmp_path: Path,
    name: str,
    file: str,
    entry: str | None,
    missing: str,
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(image_models.path[name], folder)
    content = torch.load(folder / file, weights_only=True)
    tensors = content[entry] if entry else content
    whole = tensors[missing]
    for value, problem in (
        (None, f"missing '{missing}'"),
        (torch.cat([whole, whole]), f"'{missing}' has shape"),
    ):
        if value is None:
            del tensors[missing]
        else:
            tensors[missing] = value
        torch.save(content, folder / file)
        with pytest.raises(CheckpointError, match=problem.replace(".", r"\.")):
            load_tiny(name, path=folder)
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=r"is missing|with exactly one of"):
        load_tiny(name, path=folder)


def test_clip_folders_are_loaded_strictly(
    load_tiny: Load, image_models: SimpleNamespace, tmp_path: Path
) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(image_models.path["pick_score"], folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing 'visual_projection\.weight'"):
        load_tiny("pick_score", path=folder)
    with pytest.raises(CheckpointError, match=r"missing 'visual_projection\.weight'"):
        load_tiny("laion_aesthetic", base=str(folder))
    (folder / "config.json").write_text('{"model_type": "blip"}')
    with pytest.raises(CheckpointError, match="is of a 'blip' model, expected 'clip'"):
        load_tiny("pick_score", path=folder)
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor vocab\.json"):
        load_tiny("pick_score", base=str(tmp_path))
    with pytest.raises(
        CheckpointError, match="does not hold a plain mapping from names to tensors"
    ):
        load_tiny("hps_v2", path=image_models.linear)
    with pytest.raises(ConfigError, match="needs the path of its checkpoint"):
        rewards.load("laion_aesthetic")
    with pytest.raises(ConfigError, match="options of hps_v2"):
        load_tiny("hps_v2", num_frame=3)


def test_real_sizes_have_the_published_numbers_of_parameters() -> None:
    from transformers import BlipTextConfig, BlipVisionConfig, CLIPConfig, CLIPVisionConfig

    def layers(width: int, depth: int, act: str) -> dict[str, Any]:
        shared = {"num_attention_heads": 16, "hidden_act": act}
        sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": depth}
        return shared | sizes

    huge = CLIPConfig(
        text_config=layers(1024, 24, "gelu"),
        vision_config=layers(1280, 32, "gelu") | {"patch_size": 14},
        projection_dim=1024,
    )
    large = CLIPVisionConfig(**layers(1024, 24, "quick_gelu"), patch_size=14, projection_dim=768)
    eye = BlipVisionConfig(**layers(1024, 24, "gelu"), image_size=224, patch_size=16)
    text = BlipTextConfig(num_attention_heads=12, encoder_hidden_size=1024)
    with empty_parameters():
        clip = ClipPreference(huge, is_scaled=True)
        aesthetic = AestheticNetwork(large, ScoreHead(768))
        blip = ImageRewardNetwork(eye, text)
    assert sum(p.numel() for p in clip.parameters()) == 986_109_441
    assert sum(math.prod(shape) for shape in open_clip_shapes(clip.clip).values()) == 986_109_441
    assert sum(p.numel() for p in aesthetic.clip.parameters()) == 303_966_208
    assert sum(p.numel() for p in aesthetic.head.parameters()) == 927_969
    assert sum(p.numel() for p in blip.parameters()) == 446_206_689
