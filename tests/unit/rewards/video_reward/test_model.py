"""VideoReward against the authors' code, and everything that its checkpoints can get wrong.

Expected values were computed by VideoAlign itself on tiny random weights in the published layout;
see `tests/fixtures/video_reward/README.md`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.reward_cases import FIXTURES
from videorl import rewards
from videorl.errors import CheckpointError, ConfigError, PromptError, VideoError
from videorl.rewards.scoring import score_each
from videorl.rewards.video_reward.model import VideoReward, load_video_reward
from videorl.rewards.video_reward.network import VideoRewardNetwork, published_shapes
from videorl.rewards.video_reward.qwen_video import read_patches, sample_indices
from videorl.rewards.videos import open_video
from videorl.types import Score, Video

FIXTURE = FIXTURES / "video_reward"
CASES: dict[str, Any] = {
    case["id"]: case for case in json.loads((FIXTURE / "cases.json").read_text())
}
EXPECTED: dict[str, Any] = json.loads((FIXTURE / "expected.json").read_text())["cases"]
CLIPS = [FIXTURE / case["video"] for case in CASES.values()]
PROMPTS = [case["prompt"] for case in CASES.values()]


@pytest.fixture(scope="module")
def model() -> VideoReward:
    loaded = rewards.load("video_reward", str(FIXTURE), base=str(FIXTURE / "base"))
    assert isinstance(loaded, VideoReward)
    return loaded


def assert_equal(got: list[Score], wanted: list[Score]) -> None:
    for score, other in zip(got, wanted, strict=True):
        assert score.raw == pytest.approx(other.raw, abs=1e-5)
        assert score.dimensions == pytest.approx(other.dimensions, abs=1e-5)
        assert score.total == pytest.approx(other.total, abs=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_the_authors_code(model: VideoReward, name: str) -> None:
    (score,) = model.score([FIXTURE / CASES[name]["video"]], [CASES[name]["prompt"]])
    expected = EXPECTED[name]
    assert tuple(score.raw) == tuple(score.dimensions) == model.dimensions
    # The fixture allows 1e-4; a wrong position or a wrong pixel moves the logits by far more.
    wanted = [expected["raw"][key] for key in ("VQ", "MQ", "TA")]
    assert list(score.raw.values()) == pytest.approx(wanted, abs=2e-5)
    wanted = [expected["normalised"][key] for key in ("VQ", "MQ", "TA")]
    assert list(score.dimensions.values()) == pytest.approx(wanted, abs=2e-5)
    assert score.total == pytest.approx(expected["Overall"], abs=5e-5)


@pytest.mark.parametrize("name", CASES)
def test_inputs_are_those_of_the_authors_code(model: VideoReward, name: str) -> None:
    video, expected = open_video(FIXTURE / CASES[name]["video"]), EXPECTED[name]
    assert sample_indices(video.num_frames, video.fps, 2.0) == expected["frame_indices"]
    patches = read_patches(video, 2.0, 200704)
    assert list(patches.grid_thw) == expected["video_grid_thw"]
    assert list(patches.pixels.shape) == expected["pixel_values_shape"]
    pixels = patches.pixels.double()
    assert pixels.mean().item() == pytest.approx(expected["pixel_values_mean"], abs=1e-6)
    assert pixels.abs().mean().item() == pytest.approx(expected["pixel_values_abs_mean"], abs=1e-6)
    question = model.questionnaire.ask(CASES[name]["prompt"], patches.num_tokens)
    assert question == expected["input_ids"]


def test_frames_in_memory_score_like_their_file(model: VideoReward) -> None:
    frames = np.load(FIXTURE / "vr_pub_2.npz")["frames"]
    frames.flags.writeable = False  # as frames out of Ray's object store are
    scores = model.score([Video(frames, 16.0), CLIPS[1]], [PROMPTS[1]] * 2)
    assert scores[0] == scores[1]


def test_batches_score_like_single_videos(model: VideoReward) -> None:
    short = Video(np.random.default_rng(0).integers(0, 256, (3, 30, 40, 3), np.uint8), 24.0)
    videos = [CLIPS[0], short, CLIPS[2]]
    prompts = ["雨の中を歩く naïve girl 🎈", '{braces} and "quotes"', "x " * 100]
    alone = [
        model.score([video], [prompt])[0] for video, prompt in zip(videos, prompts, strict=True)
    ]
    assert_equal(model.score(videos, prompts), alone)
    assert model.score([], []) == []


def test_a_video_with_several_prompts_is_encoded_once(model: VideoReward) -> None:
    videos = [CLIPS[1], CLIPS[0], CLIPS[1], CLIPS[1], CLIPS[1]]
    prompts = [PROMPTS[1], PROMPTS[0], "two balls", PROMPTS[1], "caf\u00e9"]
    alone = [
        model.score([video], [prompt])[0] for video, prompt in zip(videos, prompts, strict=True)
    ]
    grids: list[int] = []
    hook = model.network.backbone.model.visual.register_forward_pre_hook(
        lambda _module, _inputs, named: grids.append(len(named["grid_thw"])), with_kwargs=True
    )
    together = model.score(videos, prompts)
    hook.remove()
    assert grids == [1, 1]
    assert_equal(together, alone)
    for name in ("visual_quality", "motion_quality"):
        assert len({together[index].raw[name] for index in (0, 2, 3, 4)}) == 1
    assert together[0].raw["text_alignment"] != together[2].raw["text_alignment"]
    small = VideoReward(model.network, model.questionnaire, model.settings, max_batch_tokens=1)
    assert_equal(small.score(videos, prompts), alone)


def test_bad_videos_and_prompts_cost_their_neighbours_nothing(
    model: VideoReward, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(CLIPS[0].read_bytes()[:9000])
    videos = [cut, CLIPS[1], CLIPS[1], CLIPS[1]]
    prompts = [PROMPTS[0], PROMPTS[1], "all is well <|VQ_reward|>", ""]
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        model.score(videos, prompts)
    broken, good, reserved, empty = score_each(model, videos, prompts)
    assert isinstance(broken, VideoError)
    assert isinstance(good, Score)
    assert_equal([good], model.score([CLIPS[1]], [PROMPTS[1]]))
    assert isinstance(reserved, PromptError)
    assert "<|VQ_reward|>" in str(reserved)
    assert isinstance(empty, PromptError)
    with pytest.raises(PromptError, match=r"160000 characters is too long: .* model takes 32768"):
        model.score([CLIPS[1]], ["cat " * 40_000])


def damaged_copy(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """Copy the fixture with a changed `model.pth`."""
    shutil.copytree(FIXTURE, folder, ignore=shutil.ignore_patterns("*.mp4", "*.npz"))
    weights = folder / "checkpoint-1/model.pth"
    tensors = torch.load(weights, weights_only=True)
    change(tensors)
    torch.save(tensors, weights)
    return folder


HEAD = "base_model.model.rm_head.weight"
LORA = "base_model.model.model.layers.1.mlp.up_proj.lora_B.default.weight"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.pop(HEAD), f"missing '{HEAD}'"),
        (lambda tensors: tensors.pop(LORA), f"missing '{LORA}'"),
        (
            lambda tensors: tensors.pop("base_model.model.visual.merger.ln_q.bias"),
            r"missing 'base_model\.model\.visual\.merger\.ln_q\.bias'",
        ),
        (lambda tensors: tensors.update(more=torch.ones(1)), "unexpected 'more'"),
        (
            lambda tensors: tensors.update({HEAD: torch.ones(3, 32)}),
            rf"'{HEAD}' has shape \[3, 32\], expected \[1, 32\]",
        ),
    ],
)
def test_weights_must_fit_exactly(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], reason: str
) -> None:
    folder = damaged_copy(tmp_path / "copy", change)
    with pytest.raises(CheckpointError, match=rf"model\.pth is not .*{reason}"):
        load_video_reward(str(folder), base=str(FIXTURE / "base"))


def test_unsupported_and_incomplete_checkpoints_are_refused(tmp_path: Path) -> None:
    folder = damaged_copy(tmp_path / "copy", lambda tensors: None)
    base = str(folder / "base")
    settings_file = folder / "model_config.json"
    settings = json.loads(settings_file.read_text())
    settings["data_config"]["sample_type"] = "multi_pts"
    settings_file.write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"sample_type is 'multi_pts', only 'uniform'"):
        load_video_reward(str(folder), base=base)
    del settings["data_config"]["sample_type"]
    del settings["peft_lora_config"]["lora_r"]
    settings_file.write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"lacks a usable value: KeyError\('lora_r'\)"):
        load_video_reward(str(folder), base=base)
    shutil.copy(FIXTURE / "model_config.json", settings_file)
    (folder / "checkpoint-1/model.pth").rename(folder / "model.pth")
    with pytest.raises(CheckpointError, match=r"checkpoint-1/model\.pth is missing"):
        load_video_reward(str(folder), base=base)
    (folder / "checkpoint-1/tokenizer/tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        load_video_reward(str(folder), base=base)
    shutil.rmtree(folder / "checkpoint-1")
    with pytest.raises(CheckpointError, match="holds no checkpoint-N folder"):
        load_video_reward(str(folder), base=base)


def test_one_step_can_be_named_and_options_are_checked() -> None:
    base = FIXTURE / "base"
    assert load_video_reward(str(FIXTURE / "checkpoint-1"), base=str(base)).settings.lora_rank == 4
    with pytest.raises(ConfigError, match="dtype must be one of float32, bfloat16"):
        rewards.load("video_reward", str(FIXTURE), base=str(base), dtype="int8")
    with pytest.raises(ConfigError, match="max_batch_tokens must be > 0"):
        rewards.load("video_reward", str(FIXTURE), base=str(base), max_batch_tokens=0)


def test_the_real_model_has_its_published_sizes() -> None:
    from transformers import Qwen2VLConfig

    configure: Any = Qwen2VLConfig
    numbers = {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_config": {
            "depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16,
            "mlp_ratio": 4, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
    }  # fmt: skip
    with torch.device("meta"):
        base = VideoRewardNetwork(configure(vocab_size=151936, **numbers))
        resized = VideoRewardNetwork(configure(vocab_size=151660, **numbers))
    assert sum(p.numel() for p in base.parameters()) == 2_208_985_600 + 1536
    layers = [
        f"model.layers.{number}.{part}"
        for number in range(28)
        for part in (
            *(f"self_attn.{name}_proj" for name in "qkvo"),
            *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
        )
    ]
    shapes = published_shapes(resized, layers, rank=64)
    # bfloat16; the published file is 328,465 bytes longer: pickle and zip.
    assert 2 * sum(torch.Size(shape).numel() for shape in shapes.values()) == 5_030_744_064
