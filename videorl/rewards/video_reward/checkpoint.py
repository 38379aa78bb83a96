"""Read VideoReward's published checkpoints strictly: settings, tensor names, LoRA."""

from __future__ import annotations

import logging
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videorl.errors import CheckpointError
from videorl.rewards.checkpoints import (
    check_tensors,
    empty_parameters,
    load_strictly,
    read_json,
    read_tensors,
)
from videorl.rewards.video_reward.network import (
    VideoRewardNetwork,
    merged,
    published_name,
    published_shapes,
)
from videorl.rewards.video_reward.qwen_video import MIN_PIXELS, Patches, read_patches, read_pixels
from videorl.rewards.videos import OpenVideo

logger = logging.getLogger(__name__)

SETTINGS_FILE = "model_config.json"
PEFT_PREFIX = "base_model.model."
_REQUIRED = (
    ("data_config", "eval_dim", ["VQ", "MQ", "TA"], None),
    ("data_config", "num_frames", None, None),
    ("data_config", "prompt_template_type", "detailed_special", None),
    ("data_config", "sample_type", "uniform", "uniform"),
    ("model_config", "use_special_tokens", True, False),
)
"""Section, key, the only supported value, and VideoAlign's default where the key is absent.

Models with other values were never published.
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """The content of `model_config.json`."""

    base: str
    """Hub id of the model whose configuration is used."""
    dtype: torch.dtype
    output_dim: int
    sampled_fps: float
    max_frame_pixels: int
    min_frame_pixels: int
    """Only set for models trained with this project; published ones have the default."""
    lora_rank: int
    """0 = all weights were trained, or LoRA is merged."""
    lora_scale: float
    means: tuple[float, ...]
    """Means of the three rewards over the authors' data; 0 without normalisation."""
    stds: tuple[float, ...]

    def read(self, video: OpenVideo) -> Patches:
        """Decode the patches that the model looks at; raises VideoError like `read_patches`."""
        return read_patches(video, self.sampled_fps, self.max_frame_pixels, self.min_frame_pixels)

    def read_pixels(self, frames_F3HW: Tensor, fps: float) -> Patches:
        """Do the same for pixels in [0, 1], differentiably."""
        limits = (self.max_frame_pixels, self.min_frame_pixels)
        return read_pixels(frames_F3HW, fps, self.sampled_fps, *limits)


def find_step(folder: Path) -> tuple[Path, Path]:
    """Return the settings file and the newest `checkpoint-N` of a folder, or `folder` if it is one.

    The newest that is whole: others are passed over, and logged.

    Raises:
        CheckpointError: There is none.
    """
    if re.fullmatch(r"checkpoint-\d+", folder.name) and not (folder / SETTINGS_FILE).is_file():
        return folder.parent / SETTINGS_FILE, folder
    steps = [path for path in folder.glob("checkpoint-*") if path.name.split("-")[-1].isdigit()]
    steps.sort(key=lambda path: int(path.name.split("-")[-1]), reverse=True)
    if not steps:
        raise CheckpointError(f"{folder} holds no checkpoint-N folder")
    chosen = next((step for step in steps if _is_whole(step)), steps[0])
    for passed_over in steps[: steps.index(chosen)]:
        logger.warning(
            "%s has no whole model.pth (its writing or copying was cut short): %s is used instead",
            passed_over, chosen.name,
        )  # fmt: skip
    return folder / SETTINGS_FILE, chosen


def _is_whole(step: Path) -> bool:
    """Tell whether a checkpoint's weights are there; torch's archive has its directory at the end.

    What is older than torch's archives cannot be told so, and counts as whole.
    """
    weights = step / "model.pth"
    if not weights.is_file() or weights.stat().st_size == 0:
        return False
    with weights.open("rb") as file:
        is_archive = file.read(4) == b"PK\x03\x04"
    return not is_archive or zipfile.is_zipfile(weights)


def read_settings(path: Path) -> Settings:
    """Read `model_config.json`.

    Raises:
        CheckpointError: The file is missing or damaged, lacks a value, or is of another model.
    """
    content = read_json(path)
    try:
        for section, key, wanted, default in _REQUIRED:
            if (got := content[section].get(key, default)) != wanted:
                raise CheckpointError(
                    f"{path}: {section}.{key} is {got!r}, only {wanted!r} is supported"
                )
        return _settings(content)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path} lacks a usable value: {error!r}") from error


def load_network(
    checkpoint: Path, settings: Settings, config: Any, dtype: torch.dtype | None
) -> VideoRewardNetwork:
    """Build the network and fill it from a `checkpoint-N` folder, LoRA merged.

    Args:
        checkpoint: Has `model.pth`.
        settings: What `read_settings` returned.
        config: A `Qwen2VLConfig` with the vocabulary size of the checkpoint's tokenizer.
        dtype: Type for the weights; None = as stored.

    Raises:
        CheckpointError: A tensor is missing, unexpected or of a wrong shape; the error has its name
            in the checkpoint.
    """
    source = checkpoint / "model.pth"
    if not source.is_file():
        partial = (checkpoint / "adapter_model.safetensors").is_file()
        why = "; train with save_full_model, an adapter alone is not supported" if partial else ""
        raise CheckpointError(f"{source} is missing from the checkpoint{why}")
    stored = read_tensors(source)
    prefix = PEFT_PREFIX if any(name.startswith(PEFT_PREFIX) for name in stored) else ""
    tensors = {name.removeprefix(prefix): tensor for name, tensor in stored.items()}
    with empty_parameters():
        network = VideoRewardNetwork(config, settings.output_dim)
    lora_layers = {name.partition(".base_layer.")[0] for name in tensors if ".base_layer." in name}
    wanted = published_shapes(network, sorted(lora_layers), settings.lora_rank)
    check_tensors({prefix + name: shape for name, shape in wanted.items()}, stored, source)
    own = {
        name: _value(tensors, published_name(name), settings.lora_scale, dtype)
        for name in network.state_dict()
    }
    # Input and output embeddings are one tensor; converting both would copy it twice.
    own["backbone.lm_head.weight"] = own["backbone.model.language_model.embed_tokens.weight"]
    load_strictly(network, own, source=source, dtype=dtype)
    return network.requires_grad_(False).eval()


def _value(
    tensors: Mapping[str, Tensor], name: str, scale: float, dtype: torch.dtype | None
) -> Tensor:
    layer, _, kind = name.rpartition(".")
    if name in tensors:
        return tensors[name]
    if kind == "weight":
        return merged(tensors, layer, scale, dtype)
    return tensors[f"{layer}.base_layer.{kind}"]


def _settings(content: Mapping[str, Any]) -> Settings:
    data, model = content["data_config"], content["model_config"]
    lora, normal = content["peft_lora_config"], content.get("inference_config")
    dtype = getattr(torch, model.get("torch_dtype") or "bfloat16")
    rank = int(lora["lora_r"]) if lora.get("lora_enable", True) else 0
    scaled_by = math.sqrt(rank) if lora.get("use_rslora") else rank
    if model["output_dim"] not in (1, 3):
        raise ValueError(f"model_config.output_dim {model['output_dim']}, expected 1 or 3")
    names = ("VQ", "MQ", "TA")
    return Settings(
        base=model["model_name_or_path"],
        dtype=dtype,
        output_dim=model["output_dim"],
        sampled_fps=float(data["fps"]),
        max_frame_pixels=int(data["max_frame_pixels"]),
        min_frame_pixels=int(data.get("min_frame_pixels", MIN_PIXELS)),
        lora_rank=rank,
        lora_scale=lora["lora_alpha"] / scaled_by if rank else 0.0,
        means=tuple(float(normal[f"{name}_mean"]) if normal else 0.0 for name in names),
        stds=tuple(float(normal[f"{name}_std"]) if normal else 1.0 for name in names),
    )
