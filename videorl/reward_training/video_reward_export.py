"""Write a trained VideoReward in the published layout, which `rewards.load` opens."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videorl.files import hub
from videorl.reward_training.config import RewardRecipe
from videorl.reward_training.video_reward_adapters import RewardTokenEmbedding
from videorl.rewards.video_reward.checkpoint import PEFT_PREFIX, SETTINGS_FILE
from videorl.rewards.video_reward.network import VideoRewardNetwork, published_name
from videorl.rewards.video_reward.prompt import Questionnaire
from videorl.run.checkpoint_files import writing

_EMBEDDING = "backbone.model.language_model.embed_tokens"


def published_settings(recipe: RewardRecipe, rewards_BK: Tensor | None) -> dict[str, Any]:
    """Return the content of `model_config.json`.

    Args:
        recipe: Recipe of the training.
        rewards_BK: Rewards of all held-out videos, whose mean and standard deviation normalise
            scores; None = scores are not normalised.
    """
    model, lora = recipe.model, recipe.model.lora
    # Other programs know no revision inside an id.
    base, _, revision = model.base.partition("@") if hub.parse(model.base) else (model.base, "", "")
    settings: dict[str, Any] = {
        "data_config": {
            "max_frame_pixels": model.max_frame_pixels,
            "min_frame_pixels": model.min_frame_pixels,
            "num_frames": None,
            "fps": model.sampled_fps,
            "eval_dim": ["VQ", "MQ", "TA"],
            "prompt_template_type": "detailed_special",
            "sample_type": "uniform",
        },
        "model_config": {
            "model_name_or_path": base,
            "model_revision": revision or "main",
            "output_dim": 1,
            "use_special_tokens": True,
            "torch_dtype": "float32",
            "reward_token": "special",
            "loss_type": "btt",
        },
        "peft_lora_config": {
            "lora_enable": lora.rank > 0,
            "vision_lora": False,
            "lora_r": lora.rank,
            "lora_alpha": lora.alpha,
            "lora_dropout": lora.dropout,
            "lora_namespan_exclude": ["lm_head", "rm_head", "embed_tokens", "visual"],
            "lora_task_type": "CAUSAL_LM",
            "use_rslora": False,
            "num_lora_modules": -1,
        },
    }
    if rewards_BK is not None:
        means, stds = rewards_BK.double().mean(0), rewards_BK.double().std(0)
        settings["inference_config"] = {
            f"{name}_{what}": float(value)
            for what, values in (("mean", means), ("std", stds))
            for name, value in zip(("VQ", "MQ", "TA"), values, strict=True)
        }
    return settings


def published_tensors(network: VideoRewardNetwork) -> dict[str, Tensor]:
    """Return every weight under its name in VideoAlign's `model.pth`."""
    tensors: dict[str, Tensor] = dict(network.state_dict())
    table = network.get_submodule(_EMBEDDING)
    if isinstance(table, RewardTokenEmbedding):
        tensors = {k: v for k, v in tensors.items() if not k.startswith(f"{_EMBEDDING}.")}
        tensors[f"{_EMBEDDING}.weight"] = table.merged()
    tensors["backbone.lm_head.weight"] = tensors[f"{_EMBEDDING}.weight"]
    return {PEFT_PREFIX + published_name(name): t.cpu() for name, t in tensors.items()}


def write_checkpoint(
    folder: Path,
    step: int,
    settings: Mapping[str, Any],
    network: VideoRewardNetwork,
    questionnaire: Questionnaire,
) -> None:
    """Write `model_config.json` and `checkpoint-<step>/`, the latter atomically.

    Raises:
        CheckpointError: It cannot be written.
    """
    final = folder / f"checkpoint-{step}"
    partial = folder / f".checkpoint-{step}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "tokenizer").mkdir(parents=True)
    with writing(partial):
        torch.save(published_tensors(network), partial / "model.pth")
        questionnaire.tokenizer.save(str(partial / "tokenizer/tokenizer.json"))
        template = {"chat_template": questionnaire.chat_template}
        (partial / "tokenizer/chat_template.json").write_text(json.dumps(template))
        (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=4) + "\n")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
