"""VisionReward against what its authors' code computes, and against bad input."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from videorl import rewards
from videorl.data.video_io import read_video
from videorl.errors import CheckpointError, ConfigError, PromptError, VideoError
from videorl.rewards.clip_normal import MEAN, STD
from videorl.rewards.scoring import score_each
from videorl.rewards.videos import open_video
from videorl.rewards.vision_reward import cogvlm2_video
from videorl.rewards.vision_reward.model import VisionReward, pick_frames, preprocess, read_answer
from videorl.rewards.vision_reward.questions import weighted
from videorl.types import Score, Video

IDS = ("vn_pub_1", "vn_pub_2", "vn_pub_3")


@pytest.fixture(scope="module")
def model(vision_reward_folder: Path) -> VisionReward:
    loaded = rewards.load("vision_reward", str(vision_reward_folder))
    assert isinstance(loaded, VisionReward)
    return loaded


@pytest.fixture(scope="module")
def cases(vision_reward_folder: Path) -> dict[str, Any]:
    """Return the fixture's cases by id: what was asked and, under `wanted`, what came out."""
    wanted = json.loads((vision_reward_folder / "expected.json").read_text())["cases"]
    asked = json.loads((vision_reward_folder / "cases.json").read_text())
    return {
        case["id"]: case
        | {"path": vision_reward_folder / case["video"], "wanted": wanted[case["id"]]}
        for case in asked
    }


@pytest.mark.parametrize("source", ["file", "memory"])
@pytest.mark.parametrize("case_id", IDS)
def test_scores_are_those_of_the_authors_code(
    model: VisionReward, cases: dict[str, Any], case_id: str, source: str
) -> None:
    case = cases[case_id]
    video = case["path"] if source == "file" else read_video(case["path"])
    (score,) = model.score([video], [case["prompt"]])
    wanted = case["wanted"]
    assert score.raw["answers"] == tuple(question["answer"] for question in wanted["questions"])
    for kind in ("yes", "no"):
        logits = [question[f"{kind}_logit"] for question in wanted["questions"]]
        assert score.raw[f"{kind}_logits"] == pytest.approx(logits, abs=1e-4)
    assert score.total == pytest.approx(wanted["R"], abs=1e-9)
    by_dimension = {name.lower(): r for name, r in wanted["R_per_dimension"].items()}
    assert score.dimensions == pytest.approx(by_dimension, abs=1e-9)
    assert tuple(score.dimensions) == model.dimensions


@pytest.mark.parametrize("case_id", IDS)
def test_frames_and_positions_are_those_of_the_authors_code(
    model: VisionReward, cases: dict[str, Any], case_id: str
) -> None:
    wanted = cases[case_id]["wanted"]
    video = open_video(cases[case_id]["path"])
    indices = pick_frames(video.timestamps())
    assert indices == wanted["frame_indices"]
    pixels = preprocess(video.read(indices))
    assert list(pixels.shape) == wanted["pixel_values_shape"]
    assert float(pixels.double().mean()) == pytest.approx(wanted["pixel_values_mean"], abs=1e-9)
    positions = model.read(video).positions_L.tolist()
    assert positions == wanted["first_question_position_ids"][: len(positions)]


def test_a_batch_gives_the_numbers_of_single_videos(
    model: VisionReward, cases: dict[str, Any]
) -> None:
    videos = [cases[name]["path"] for name in IDS]
    prompts = [cases[name]["prompt"] for name in IDS]
    together = model.score(videos, prompts)
    alone = [model.score([v], [p])[0] for v, p in zip(videos, prompts, strict=True)]
    assert together == alone


def test_total_by_option(vision_reward_folder: Path, cases: dict[str, Any]) -> None:
    case = cases["vn_pub_1"]
    totals: dict[str, float] = {}
    for name in ("published", "continuous"):
        model = rewards.load("vision_reward", str(vision_reward_folder), total=name)
        (score,) = model.score([case["path"]], [case["prompt"]])
        totals[name] = score.total
        assert sum(score.dimensions.values()) == pytest.approx(case["wanted"]["R"])
    assert totals["published"] == pytest.approx(case["wanted"]["score"], abs=1e-9)
    assert 0 < abs(totals["continuous"] - case["wanted"]["R"]) < 6.28


def test_all_64_questions_can_be_asked(model: VisionReward, cases: dict[str, Any]) -> None:
    case = cases["vn_pub_1"]
    answers = model.ask(case["path"], case["prompt"])
    assert len(answers) == 64
    first = case["wanted"]["questions"][0]
    assert answers[0].yes_logit == pytest.approx(first["yes_logit"], abs=1e-4)


def test_other_weights_ask_other_questions(
    vision_reward_folder: Path, cases: dict[str, Any], tmp_path: Path
) -> None:
    case = cases["vn_pub_1"]
    path, prompt = case["path"], case["prompt"]
    everything = VisionReward(vision_reward_folder, questions="all")
    (score,) = everything.score([path], [prompt])
    assert len(score.raw["answers"]) == 64
    assert score.total == pytest.approx(case["wanted"]["R"], abs=1e-9)
    wanted = score.raw["answers"][63] == "yes"
    (tmp_path / "weight.json").write_text(str([0.0] * 63 + [2.0]))
    refitted = VisionReward(vision_reward_folder, weights=tmp_path / "weight.json")
    assert [question.id for question in refitted.asked] == [64]
    (score,) = refitted.score([path], [prompt])
    assert score.total == 2.0 * wanted
    with pytest.raises(ConfigError, match="must be weighted or all, got '64'"):
        VisionReward(vision_reward_folder, questions="64")


def test_one_frame_per_second_the_earlier_of_two_equally_near() -> None:
    quarters = (np.arange(11) / 4).astype(np.float32)  # 0 … 2.5 s; 2.5 rounds to even, so to 2
    assert pick_frames(quarters) == [0, 4, 8]
    uneven = np.array([0.0, 0.5, 1.5, 1.6], np.float32)  # 0.5 and 1.5 are equally near to 1
    assert pick_frames(uneven) == [0, 1, 3]
    assert pick_frames(np.arange(100, dtype=np.float32)) == list(range(24))


@pytest.mark.parametrize("fps", [1.0, 2.5, 7.0, 8.0, 15.0, 23.976, 24.0, 29.97, 60.0])
def test_frames_are_picked_as_described_for_any_length_and_rate(fps: float) -> None:
    """Reckoned number by number from the specification, apart from the code's own steps."""
    for num_frames in (2, 3, 5, 8, 16, 33, 49, 81, 121, 300, 2000):
        seconds = [np.float32(frame / fps) for frame in range(num_frames)]
        wanted: list[int] = []
        for second in range(round(float(max(seconds))) + 1):
            if len(wanted) < 24:
                distances = [abs(float(at) - second) for at in seconds]
                wanted.append(distances.index(min(distances)))
        assert pick_frames(np.array(seconds, np.float32)) == wanted, num_frames


@pytest.mark.parametrize("size", [(60, 100), (100, 60), (224, 224), (2, 9), (480, 833), (225, 224)])
def test_pixels_are_scaled_by_the_short_side_and_cropped_in_the_middle(
    size: tuple[int, int],
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    levels = (frames[0].transpose(2, 0, 1) / 255).astype(np.float64)
    mean, std = (np.array(values)[:, None, None] for values in (MEAN, STD))
    scaled = (224 * size[0] // min(size), 224 * size[1] // min(size))
    rows, columns = (linear_weights(*pair) for pair in zip(size, scaled, strict=True))
    wanted = rows @ ((levels - mean) / std) @ columns.T
    top, left = (round((side - 224) / 2) for side in scaled)
    wanted = wanted[:, top : top + 224, left : left + 224]
    got = preprocess(frames)
    assert got.shape == (1, 3, 224, 224)
    assert np.abs(got[0].double().numpy() - wanted).max() < 1e-3


def linear_weights(old: int, new: int) -> np.ndarray:
    """Return linear interpolation without smoothing as a matrix [new, old]; edges are repeated."""
    at = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
    return np.maximum(1 - np.abs(np.arange(old) - at[:, None]), 0)


def test_answers_are_read_in_any_spelling_and_else_from_the_logits() -> None:
    pairs = [(0, 1), (2, 3)]  # yes, no, Yes, No; 4 is another word
    assert read_answer(torch.tensor([0.5, 0.9, 3.0, 1.0, 0.0]), "Yes", pairs).is_yes
    assert not read_answer(torch.tensor([0.9, 0.5, 1.0, 3.0, 0.0]), " NO\n", pairs).is_yes
    neither = read_answer(torch.tensor([0.5, 0.9, 3.0, 1.0, 9.0]), "maybe", pairs)
    assert (neither.is_yes, neither.yes_logit, neither.no_logit) == (True, 3.0, 1.0)
    assert not read_answer(torch.tensor([-3.0, -1.0, -5.0, -4.0, 9.0]), "maybe", pairs).is_yes


def test_logits_that_are_not_finite_do_not_pass_for_an_answer(
    vision_reward_folder: Path, cases: dict[str, Any]
) -> None:
    broken = VisionReward(vision_reward_folder)
    with torch.no_grad():
        torch.nn.init.constant_(broken.network.language.norm.weight, math.nan)
    (score,) = broken.score([cases["vn_pub_1"]["path"]], ["a cat"])
    assert math.isnan(score.total)
    assert all(math.isnan(value) for value in score.dimensions.values())


@pytest.mark.parametrize("prompt", ["", " \n", "a <|end_of_text|> cat", "cat " * 9000])
def test_unusable_prompts_are_refused(
    model: VisionReward, cases: dict[str, Any], prompt: str
) -> None:
    with pytest.raises(PromptError, match=r"is empty|contains '<\|end_of_text\|>'|is too long"):
        model.score([cases["vn_pub_1"]["path"]], [prompt])


def test_prompts_longer_than_the_config_says_are_scored_as_upstream_scores_them(
    model: VisionReward, cases: dict[str, Any]
) -> None:
    prompt = "cat " * 1100  # 2,201 tokens; config.json has 2,048 positions
    (answer,) = model.ask(cases["vn_pub_1"]["path"], prompt, weighted()[:1])
    assert math.isfinite(answer.yes_logit)


def test_a_damaged_video_costs_only_itself(
    model: VisionReward, cases: dict[str, Any], tmp_path: Path
) -> None:
    case = cases["vn_pub_1"]
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(case["path"].read_bytes()[:3000])
    with pytest.raises(VideoError, match=r"damaged\.mp4"):
        model.score([damaged], ["a cat"])
    still = Video(np.zeros((8, 16, 16, 3), np.uint8), 8.0)
    results = score_each(model, [damaged, still, case["path"]], [case["prompt"]] * 3)
    assert isinstance(results[0], VideoError)
    assert all(isinstance(result, Score) for result in results[1:])


def test_small_tall_and_unicode_input_is_scored(model: VisionReward) -> None:
    small = Video(np.full((3, 2, 9, 3), 200, np.uint8), 1.0)
    scores = model.score([small], ["ein Mädchen im Regen 雨"])
    assert all(math.isfinite(value) for value in scores[0].dimensions.values())
    with pytest.raises(VideoError, match="video 0 of 1: frames are 500×2 pixels"):
        model.score([Video(np.zeros((3, 2, 500, 3), np.uint8), 1.0)], ["a line"])


def test_wrong_options_and_folders_are_named(vision_reward_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'published'"):
        rewards.load("vision_reward", str(vision_reward_folder), total="publshed")
    with pytest.raises(ConfigError, match="no floating type 'int8'"):
        rewards.load("vision_reward", str(vision_reward_folder), dtype="int8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        rewards.load("vision_reward", str(tmp_path))


def test_bfloat16_answers_nearly_the_same(
    vision_reward_folder: Path, cases: dict[str, Any]
) -> None:
    case = cases["vn_pub_1"]
    rounded = VisionReward(vision_reward_folder, dtype="bfloat16")
    assert isinstance(rounded.network, cogvlm2_video.CogVLM2Video)
    (score,) = rounded.score([case["path"]], [case["prompt"]])
    wanted = [question["yes_logit"] for question in case["wanted"]["questions"]]
    assert score.raw["yes_logits"] == pytest.approx(wanted, abs=0.3)
