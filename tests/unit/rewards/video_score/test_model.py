"""VideoScore against the authors' code, on good videos and bad ones.

Expected values were computed by the authors' code on tiny random weights in the published layout;
see `tests/fixtures/video_score/README.md`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.reward_cases import FIXTURES
from videorl import rewards
from videorl.data.video_io import read_video
from videorl.errors import PromptError, VideoError
from videorl.rewards.scoring import score_each
from videorl.rewards.video_score.inputs import sample_indices
from videorl.rewards.video_score.model import VideoScore
from videorl.rewards.video_score.network import patch_places
from videorl.types import Score, Video

FIXTURE = FIXTURES / "video_score"
CASES: dict[str, Any] = {
    case["id"]: case for case in json.loads((FIXTURE / "cases.json").read_text())
}
EXPECTED: dict[str, Any] = json.loads((FIXTURE / "expected.json").read_text())["cases"]
CLIPS = [FIXTURE / case["video"] for case in CASES.values()]
PROMPTS = [case["prompt"] for case in CASES.values()]


@pytest.fixture(scope="module")
def models() -> dict[int, VideoScore]:
    """Return the model by `max_num_frames`. Never change its weights."""
    loaded: dict[int, VideoScore] = {}
    for max_num_frames in (16, 48):
        model = rewards.load("video_score", str(FIXTURE), max_num_frames=max_num_frames)
        assert isinstance(model, VideoScore)
        loaded[max_num_frames] = model
    return loaded


@pytest.fixture
def model(models: dict[int, VideoScore]) -> VideoScore:
    return models[16]


def assert_equal(got: list[Score], wanted: list[Score]) -> None:
    for score, other in zip(got, wanted, strict=True):
        assert score.raw == pytest.approx(other.raw, abs=1e-5)
        assert score.total == pytest.approx(other.total, abs=1e-5)


def random_video(num_frames: int, height: int, width: int) -> Video:
    shape = (num_frames, height, width, 3)
    return Video(np.random.default_rng(num_frames).integers(0, 256, shape, np.uint8), 24.0)


@pytest.mark.parametrize("max_num_frames", [16, 48])
@pytest.mark.parametrize("name", CASES)
def test_scores_and_inputs_are_those_of_the_authors_code(
    models: dict[int, VideoScore], name: str, max_num_frames: int
) -> None:
    model, case = models[max_num_frames], CASES[name]
    wanted = EXPECTED[name][f"max_frames_{max_num_frames}"]
    assert sample_indices(case["num_frames"], max_num_frames) == wanted["frame_indices"]
    clip = model.prepare(FIXTURE / case["video"], case["prompt"])
    assert clip.token_ids == wanted["input_ids"]
    assert [1, *clip.pixels_FCHW.shape] == wanted["pixel_values_shape"]
    pixels = clip.pixels_FCHW.double()
    assert pixels.mean().item() == pytest.approx(wanted["pixel_values_mean"], abs=1e-6)
    assert pixels.abs().mean().item() == pytest.approx(wanted["pixel_values_abs_mean"], abs=1e-6)
    (score,) = model.score([FIXTURE / case["video"]], [case["prompt"]])
    assert tuple(score.raw) == tuple(score.dimensions) == model.dimensions
    # The fixture allows 1e-4.
    assert list(score.raw.values()) == pytest.approx(wanted["logits"], abs=2e-5)
    assert score.dimensions == score.raw
    assert score.total == pytest.approx(wanted["mean_of_5"], abs=2e-5)


@pytest.mark.parametrize(
    ("num_frames", "height", "width", "wanted"),
    [
        (3, 812, 686, [2.499932, 0.612932, -2.397213, 1.014277, -1.019594]),
        (18, 30, 400, [1.473698, -0.330168, 1.184130, 2.669368, 0.011494]),
    ],
)
def test_frames_of_real_size_score_as_by_the_authors_code(
    tmp_path: Path, num_frames: int, height: int, width: int, wanted: list[float]
) -> None:
    """Expected values: Mantis at f3a31920 on transformers 4.45.2, float32, eager attention.

    58 × 49 patches, of which transformers 5 places five elsewhere, and a configuration that leaves
    out what the resampler takes from the language model: each moves a logit by over 0.02.
    """
    shutil.copytree(FIXTURE, tmp_path, ignore=shutil.ignore_patterns("*.mp4"), dirs_exist_ok=True)
    tensors = load_file(FIXTURE / "model.safetensors")
    places_PD = torch.arange(4900 * 32).sin().view(4900, 32)
    tensors["model.vision_model.embeddings.position_embedding.weight"] = places_PD
    tensors["model.connector.perceiver_resampler.latents"] *= 2**-9
    save_file(tensors, tmp_path / "model.safetensors")
    config = json.loads((FIXTURE / "config.json").read_text())
    config["vision_config"]["image_size"] = 980
    del config["perceiver_config"]["rms_norm_eps"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    images = json.loads((FIXTURE / "preprocessor_config.json").read_text())
    images["size"] = {"longest_edge": 980, "shortest_edge": 378}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), np.uint8)
    (score,) = VideoScore(tmp_path).score([Video(frames, 8.0)], ["雨の中を歩く naïve girl 🎈"])
    assert list(score.raw.values()) == pytest.approx(wanted, abs=1e-4)


def test_frames_in_memory_score_like_their_file(model: VideoScore) -> None:
    video = read_video(CLIPS[1])
    video.frames.flags.writeable = False  # as frames out of Ray's object store are
    (from_memory,) = model.score([video], [PROMPTS[1]])
    (from_file,) = model.score([CLIPS[1]], [PROMPTS[1]])
    assert from_memory == from_file


def test_batches_score_like_single_videos(models: dict[int, VideoScore]) -> None:
    model = models[48]
    videos = [CLIPS[2], random_video(2, 30, 41), CLIPS[0], random_video(5, 7, 300)]
    prompts = ["雨の中を歩く naïve girl 🎈", '{braces} and "quotes"', "x", "two\nlines " * 40]
    alone = [
        model.score([video], [prompt])[0] for video, prompt in zip(videos, prompts, strict=True)
    ]
    for max_batch_frames in (1, 7, 1000):  # frame by frame; in parts; all in one forward
        batched = VideoScore(FIXTURE, max_num_frames=48, max_batch_frames=max_batch_frames)
        assert_equal(batched.score(videos, prompts), alone)
    assert model.score([], []) == []


def test_frames_are_picked_at_even_distances() -> None:
    assert sample_indices(16, 16) == list(range(16))
    assert sample_indices(2, 48) == [0, 1]
    # Steps of 1.25 and 17 / 16, rounded down.
    assert sample_indices(20, 16) == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18]
    assert sample_indices(17, 16) == list(range(16))
    assert sample_indices(480, 48) == list(range(0, 480, 10))
    # 41 / 7 · 7 is a little below 41: the authors' arange gives an eighth index, here the last.
    assert sample_indices(61, 7) == [0, 8, 17, 26, 34, 43, 52, 60]
    assert sample_indices(17, 7) == [0, 2, 4, 7, 9, 12, 14]


@pytest.mark.parametrize(("height", "width"), [(70, 70), (61, 45), (14, 900), (500, 3), (3, 5)])
def test_frames_are_encoded_as_by_transformers_own_model(
    model: VideoScore, height: int, width: int
) -> None:
    pixels_FCHW = model.prepare(random_video(3, height, width), "a cat").pixels_FCHW
    # Sides stay within the checkpoint's limits, however narrow the frame.
    assert all(28 <= side <= 70 for side in pixels_FCHW.shape[2:])
    backbone: Any = model.network.model
    with torch.no_grad():
        wanted = torch.cat(backbone.get_image_features(pixels_FCHW[None]).pooler_output)
        got = model.network.frame_features(pixels_FCHW).flatten(0, 1)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_patches_look_where_they_did_in_training() -> None:
    """Places are ⌊70·i/n⌋ but where rounding decides; the exceptions are those of Mantis' code."""
    one_less = {
        25: [5, 10, 15, 20], 49: [7, 14, 35, 42], 50: [5, 10, 15, 20, 30, 40],
        55: [11, 22, 33, 44], 58: [29],
    }  # fmt: skip
    for count in range(1, 71):
        wanted = [70 * i // count - (i in one_less.get(count, [])) for i in range(count)]
        assert patch_places(1, count, 70).tolist() == wanted
    assert patch_places(2, 3, 6).tolist() == [0, 2, 4, 18, 20, 22]


def test_bad_videos_and_prompts_cost_their_neighbours_nothing(
    model: VideoScore, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(CLIPS[0].read_bytes()[:9000])
    none = Video(np.zeros((0, 8, 8, 3), np.uint8), 8.0)
    videos = [cut, CLIPS[1], none, CLIPS[1], CLIPS[1], CLIPS[1]]
    prompts = [PROMPTS[1], PROMPTS[1], "a cat", "a cat <image> ", "", "long " * 40000]
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        model.score(videos, prompts)
    broken, good, empty, *unusable = score_each(model, videos, prompts)
    assert isinstance(broken, VideoError)
    assert isinstance(good, Score)
    assert_equal([good], model.score([CLIPS[1]], [PROMPTS[1]]))
    assert isinstance(empty, VideoError)
    assert "holds 0 frame" in str(empty)
    for error, reason in zip(unusable, ("contains '<image>'", "empty", "too long"), strict=True):
        assert isinstance(error, PromptError)
        assert reason in str(error)


@pytest.mark.parametrize("token", ["<unk>", "<s>", "<fake_token_around_image>"])
def test_prompts_may_not_hold_special_tokens(model: VideoScore, token: str) -> None:
    with pytest.raises(PromptError, match=f"contains '{token}'"):
        model.prepare(CLIPS[0], f"a {token} cat")


def test_bfloat16_scores_nearly_the_same(model: VideoScore) -> None:
    rounded = rewards.load("video_score", str(FIXTURE), dtype="bfloat16")
    (score,) = rounded.score([CLIPS[0]], [PROMPTS[0]])
    (wanted,) = model.score([CLIPS[0]], [PROMPTS[0]])
    assert score.raw != wanted.raw
    assert score.raw == pytest.approx(wanted.raw, abs=0.1)
