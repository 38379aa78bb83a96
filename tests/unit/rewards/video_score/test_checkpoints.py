"""VideoScore's checkpoints: whole or sharded, read strictly, written so that they can be read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file

from tests.reward_cases import FIXTURES
from videorl import rewards
from videorl.errors import CheckpointError, ConfigError
from videorl.rewards.video_score.model import VideoScore
from videorl.rewards.video_score.network import VideoScoreNetwork, read_config

FIXTURE = FIXTURES / "video_score"
CLIPS = [FIXTURE / "vs_pub_1.mp4", FIXTURE / "vs_pub_2.mp4"]
PROMPTS = ["a girl walks in the rain", "lamps flicker"]


def copy_of_fixture(folder: Path, *, weights: bool = True) -> Path:
    left_out = ["*.mp4", "expected.json", *([] if weights else ["model.safetensors"])]
    return shutil.copytree(FIXTURE, folder, ignore=shutil.ignore_patterns(*left_out))


def test_sharded_checkpoints_score_like_whole_ones(tmp_path: Path) -> None:
    folder = copy_of_fixture(tmp_path / "sharded", weights=False)
    tensors = load_file(FIXTURE / "model.safetensors")
    save_torch_state_dict(tensors, folder, max_shard_size="100KB")
    shards = sorted(folder.glob("model-*-of-*.safetensors"))
    assert len(shards) > 2
    wanted = VideoScore(FIXTURE).score(CLIPS, PROMPTS)
    assert VideoScore(folder).score(CLIPS, PROMPTS) == wanted
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=rf"{shards[1].name} is missing"):
        rewards.load("video_score", str(folder))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.pop("score.bias"), r"missing 'score\.bias'"),
        (
            lambda tensors: tensors.update({"score.weight": torch.ones(3, 32)}),
            r"'score\.weight' has shape \[3, 32\], expected \[5, 32\]",
        ),
        (
            lambda tensors: tensors.pop("model.connector.perceiver_resampler.latents"),
            r"missing 'model\.connector\.perceiver_resampler\.latents'",
        ),
        (lambda tensors: tensors.update(more=torch.ones(1)), "unexpected 'more'"),
    ],
)
def test_weights_must_fit_exactly(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], reason: str
) -> None:
    folder = copy_of_fixture(tmp_path / "copy", weights=False)
    tensors = load_file(FIXTURE / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"copy is not .*{reason}"):
        rewards.load("video_score", str(folder))


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("config.json", {"model_type": "qwen2_vl"}, "model_type is 'qwen2_vl', only 'idefics2'"),
        ("config.json", {"image_token_id": 3}, r"'<image>' the id 641, config\.json says 3"),
        ("config.json", {"text_config": 3}, "does not describe an Idefics2"),
        ("preprocessor_config.json", {"do_image_splitting": True}, "only false is supported"),
        ("tokenizer.json", {"model": 3}, r"tokenizer\.json cannot be read"),
        ("tokenizer.json", None, r"tokenizer\.json is missing"),
        ("config.json", None, r"config\.json is missing"),
        ("preprocessor_config.json", None, r"preprocessor_config\.json is missing"),
    ],
)
def test_unsupported_and_incomplete_checkpoints_are_refused(
    tmp_path: Path, file: str, change: dict[str, Any] | None, reason: str
) -> None:
    folder = copy_of_fixture(tmp_path / "copy")
    content = json.loads((folder / file).read_text())
    (folder / file).unlink()
    if change is not None:
        (folder / file).write_text(json.dumps(content | change))
    with pytest.raises(CheckpointError, match=reason):
        rewards.load("video_score", str(folder))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16"),
        ({"max_num_frames": 0}, "max_num_frames must be > 0, got 0"),
        ({"max_batch_frames": 0}, "max_batch_frames must be > 0, got 0"),
        ({"frames": 16}, "options of video_score"),
    ],
)
def test_options_are_checked(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        rewards.load("video_score", str(FIXTURE), **options)


def test_a_trained_network_is_saved_in_the_layout_that_is_loaded(tmp_path: Path) -> None:
    model = VideoScore(FIXTURE)
    clips = [model.prepare(video, prompt) for video, prompt in zip(CLIPS, PROMPTS, strict=True)]
    labels_B5 = torch.tensor([[1.0, 2.0, 3.0, 4.0, 1.0], [2.0, 2.0, 2.0, 2.0, 2.0]])
    optimizer = torch.optim.SGD(model.network.parameters(), lr=0.01)
    losses: list[float] = []
    for _ in range(4):
        loss = torch.nn.functional.mse_loss(model.network(clips), labels_B5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    unused = ("embed_tokens", "position_embedding")  # rows that no token or patch looked at
    for name, parameter in model.network.named_parameters():
        assert parameter.grad is not None, name
        assert name.split(".")[-2] in unused or bool(parameter.grad.abs().max() > 0), name
    model.save(tmp_path / "trained")
    again = VideoScore(tmp_path / "trained")
    assert again.score(CLIPS, PROMPTS) == model.score(CLIPS, PROMPTS)
    with pytest.raises(CheckpointError, match="save to another folder"):
        model.save(FIXTURE)


def test_the_real_model_has_its_published_size(tmp_path: Path) -> None:
    settings = {
        "model_type": "idefics2", "image_token_id": 32001, "pad_token_id": 0,
        "text_config": {
            "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "vocab_size": 32003, "rms_norm_eps": 1e-5, "max_position_embeddings": 32768,
        },
        "vision_config": {
            "model_type": "idefics2", "hidden_size": 1152, "intermediate_size": 4304,
            "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 980,
            "patch_size": 14,
        },
        "perceiver_config": {"model_type": "idefics2"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config = read_config(tmp_path)
    with torch.device("meta"):
        network = VideoScoreNetwork(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == 8_271_704_309
    # What the section leaves out comes from the language model; transformers 5 assumes 1e-6.
    resampler: Any = network.model.connector.perceiver_resampler
    assert resampler.norm.variance_epsilon == 1e-5
    assert resampler.layers[0].input_context_norm.variance_epsilon == 1e-5
