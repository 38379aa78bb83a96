"""Latent rewards in training: labelled latents of a tiny policy, loss, resuming, held-out pairs."""

from __future__ import annotations

import csv
import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.families.wan_i2v import PICTURE
from tests.tiny import tiny_policy, tiny_sampling
from videorl.config import RewardConfig
from videorl.errors import ConfigError, DatasetError, VideoError
from videorl.guidance.accuracy import AccuracyByTime
from videorl.guidance.fit import train_latent_reward
from videorl.guidance.labelling import (
    VAE,
    check_origin,
    check_settings,
    dimension_scores,
    label,
    sample_scored_latents,
    vae_digest,
    write_pairs,
)
from videorl.guidance.latent_files import (
    ScoredVideo,
    common_shape,
    read_latents,
    read_video,
    write_latents,
)
from videorl.guidance.latent_reward import load_latent_reward
from videorl.guidance.recipe import LatentRewardRecipe, load_latent_reward_recipe
from videorl.guidance.task import load_latent_reward_task
from videorl.policies import load_policy
from videorl.policies.checkpoints import PARTS
from videorl.reward_training.losses import INVALID, bradley_terry_with_ties
from videorl.reward_training.pairs import read_pairs
from videorl.rewards.moving_shapes import MovingShapesReward
from videorl.run.folder import RunFolder
from videorl.run.sinks import FanOut
from videorl.types import TextAndImage, Video
from videorl.weights import digest

DIMENSIONS = ["bright", "dark"]
PROMPTS = ["a small red circle moving left", "a large blue square moving up"]


def brightness(videos: Sequence[Video], prompt: str) -> list[Mapping[str, float]]:
    means = [float(video.frames.mean()) / 10 for video in videos]
    return [{"bright": mean, "dark": -mean} for mean in means]


@pytest.fixture(scope="module")
def labelled(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three samples of each prompt of a tiny Wan, and the labels of their six pairs."""
    folder = tmp_path_factory.mktemp("latents")
    policy = load_policy(tiny_policy(tiny_checkpoints["wan"]), tiny_sampling(), parts=PARTS)
    groups = sample_scored_latents(folder / "train", policy, brightness, PROMPTS, 3, seed=0)
    assert write_pairs(folder / "train.csv", groups, same_band=0.0) == 0
    return folder


def recipe_for(labelled: Path, checkpoints: dict[str, Path], run_dir: Path) -> LatentRewardRecipe:
    recipe = LatentRewardRecipe(name="tiny", num_steps=4, run_dir=str(run_dir))
    recipe.policy, recipe.sampling = tiny_policy(checkpoints["wan"]), tiny_sampling()
    recipe.model.dimensions, recipe.model.num_layers = DIMENSIONS, 1
    recipe.noise.judged = [0.1, 0.9]
    labels = str(labelled / "train.csv")
    recipe.labels.train = recipe.labels.held_out = labels
    recipe.labels.batch_size = 3
    recipe.learner.micro_batch_size = 2
    recipe.optimizer.learning_rate = 1e-2
    recipe.checkpoint.interval = 2
    return recipe


def test_labels_by_hand() -> None:
    scores = (0.5, 0.3), (0.3, 0.5), (0.5, 0.45), (math.nan, 0.5)
    assert [label(a, b, 0.1) for a, b in scores] == ["A", "B", "same", "invalid"]


def test_what_the_oracle_cannot_score_is_nan() -> None:
    rewards = [RewardConfig(name="moving_shapes")]
    score = dimension_scores({"moving_shapes": MovingShapesReward()}, rewards)
    long, short = (Video(np.zeros((count, 32, 32, 3), np.uint8), 8.0) for count in (9, 2))
    found = score([long, short], PROMPTS[0])
    assert [set(scores) for scores in found] == [set(MovingShapesReward.dimensions)] * 2
    assert all(math.isfinite(value) for value in found[0].values())
    assert all(math.isnan(value) for value in found[1].values())


def test_pairs_of_each_prompt_are_labelled_and_sampling_goes_on_where_it_stopped(
    labelled: Path, tiny_checkpoints: dict[str, Path]
) -> None:
    pairs = read_pairs(labelled / "train.csv", None, DIMENSIONS).pairs
    assert [pair.prompt for pair in pairs] == [PROMPTS[0]] * 3 + [PROMPTS[1]] * 3
    assert all(bright == -dark and abs(bright) == 1 for bright, dark in (p.labels for p in pairs))
    lost = pairs[0].path_a
    before = read_latents(lost)
    lost.unlink()
    policy = load_policy(tiny_policy(tiny_checkpoints["wan"]), tiny_sampling(), parts=PARTS)
    asked: list[str] = []

    def score(videos: Sequence[Video], prompt: str) -> list[Mapping[str, float]]:
        asked.append(prompt)
        return brightness(videos, prompt)

    sample_scored_latents(labelled / "train", policy, score, PROMPTS, 3, seed=0)
    assert asked == [PROMPTS[0]]
    assert torch.equal(read_latents(lost), before)


def test_files_of_another_prompt_are_replaced(
    labelled: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(labelled, tmp_path / "latents")
    policy = load_policy(tiny_policy(tiny_checkpoints["wan"]), tiny_sampling(), parts=PARTS)
    others = [PROMPTS[0], "a small green square moving up"]
    groups = sample_scored_latents(
        tmp_path / "latents/train", policy, brightness, others, 3, seed=0
    )
    assert [read_video(path).prompt for group in groups for path in group] == [
        prompt for prompt in others for _ in range(3)
    ]
    kept = [
        read_latents(folder / "train/000000-00.safetensors")
        for folder in (labelled, tmp_path / "latents")
    ]
    assert torch.equal(*kept)


def test_latents_made_with_other_settings_are_not_mixed(tmp_path: Path) -> None:
    check_settings(tmp_path / "new", {"policy.path": "digest", "--seed": 0})
    check_settings(tmp_path / "new", {"policy.path": "digest", "--seed": 0})
    wanted = r"made with other settings \(policy.path: digest -> other\).*Give another --out"
    with pytest.raises(ConfigError, match=wanted):
        check_settings(tmp_path / "new", {"policy.path": "other", "--seed": 0})


def test_latents_of_another_vae_are_refused(
    labelled: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoints["wan"], tmp_path / "policy")
    made = {VAE: vae_digest(str(tmp_path / "policy"))}
    check_settings(tmp_path, made)
    check_origin(tmp_path / "train.csv", str(tiny_checkpoints["wan"]))
    (tmp_path / "policy/transformer/config.json").write_text("{}")
    check_origin(tmp_path / "train.csv", str(tmp_path / "policy"))
    (tmp_path / "policy/vae/config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"made with another VAE than that of policy.path="):
        check_origin(tmp_path / "train.csv", str(tmp_path / "policy"))


def test_missing_scores_are_counted_logged_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for file, score in zip(files, (1.0, math.nan, 3.0), strict=True):
        write_latents(file, torch.zeros(1, 1, 1, 1), ScoredVideo("x", {"bright": score}))
    with caplog.at_level(logging.WARNING):
        assert write_pairs(tmp_path / "pairs.csv", [files]) == 2
        read = read_pairs(tmp_path / "pairs.csv", None, ["bright"])
    assert "2 of 3 labels invalid" in caplog.text
    assert "2 of 3 rows skipped" in caplog.text
    assert [pair.labels for pair in read.pairs] == [(-1,)]
    rows = list(csv.reader((tmp_path / "pairs.csv").open()))
    rows[1][3] = "nan"
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with caplog.at_level(logging.WARNING):
        assert read_pairs(tmp_path / "pairs.csv", None, ["bright"]).num_skipped == 2
    assert "bright is 'nan', expected one of A, B, same, invalid" in caplog.text


def test_latents_that_cannot_be_learned_from_are_refused(tmp_path: Path) -> None:
    video = ScoredVideo("x", {})
    paths = [tmp_path / name for name in ("a", "b", "c")]
    write_latents(paths[0], torch.zeros(2, 1, 2, 2), video)
    write_latents(paths[1], torch.zeros(2, 1, 2, 3), video)
    with pytest.raises(DatasetError, match=r"of one shape: .*a has \[2, 1, 2, 2\].*\[2, 1, 2, 3\]"):
        common_shape(paths)
    with pytest.raises(DatasetError, match="none of 1 files"):
        common_shape(paths[2:])
    write_latents(paths[2], torch.full((1, 1, 1, 1), torch.nan), video)
    with pytest.raises(VideoError, match="NaN or infinity"):
        read_latents(paths[2])


def test_latents_of_another_policy_are_refused(
    labelled: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    recipe = recipe_for(labelled, tiny_checkpoints, tmp_path)
    recipe.policy = tiny_policy(tiny_checkpoints["cogvideox"], "cogvideox")
    with pytest.raises(ConfigError, match=r"latents \[12, 3, 4, 4\].* has 4 channels"):
        load_latent_reward_task(recipe)
    recipe.model.dimensions = ["loud"]
    with pytest.raises(DatasetError, match="has no column 'loud', but path_A"):
        load_latent_reward_task(recipe)


def test_the_loss_is_bradley_terry_with_ties_on_noised_pairs(
    labelled: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    task = load_latent_reward_task(recipe_for(labelled, tiny_checkpoints, tmp_path))
    torch.manual_seed(7)
    measured = task.losses([0, 4])
    torch.manual_seed(7)
    t_N, noise = torch.rand(2), torch.randn(2, 2, 12, 3, 4, 4)
    pairs = read_pairs(labelled / "train.csv", None, DIMENSIONS).pairs
    for place, index in enumerate((0, 4)):
        pair, t_B = pairs[index], t_N[place].expand(2)
        x0 = torch.stack([read_latents(pair.path_a), read_latents(pair.path_b)])
        x_t = (1 - t_N[place]) * x0 + t_N[place] * noise[place]
        embed = task._embeds[pair.prompt]
        rewards_2K = task.module(x_t, t_B, [embed, embed])
        labels_1K = torch.tensor([pair.labels])
        expected = bradley_terry_with_ties(rewards_2K[:1], rewards_2K[1:], labels_1K).mean()
        torch.testing.assert_close(measured.loss_N[place], expected, atol=1e-5, rtol=0)


def stop_after(steps: int) -> object:
    asked = iter(range(10))
    return lambda: next(asked) >= steps


def trained(recipe: LatentRewardRecipe, stops: object = lambda: False) -> bool:
    folder = RunFolder(Path(recipe.run_dir))
    return train_latent_reward(recipe, folder, stops)  # pyright: ignore[reportArgumentType]


def test_training_learns_stops_resumes_and_saves(
    labelled: Path,
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = list[tuple[str, Any]]()
    monkeypatch.setattr(
        FanOut, "summary", lambda _, facts: told.append((facts["recipe"], facts["num_steps"]))
    )
    whole = recipe_for(labelled, tiny_checkpoints, tmp_path / "whole")
    parts = recipe_for(labelled, tiny_checkpoints, tmp_path / "parts")
    assert trained(whole)
    assert not trained(parts, stop_after(2))
    assert told == [(whole.name, 4)], "trackers know which trainings have ended"
    assert trained(parts)
    found: list[Mapping[str, Tensor]] = []
    for recipe in (whole, parts):
        folder = RunFolder(Path(recipe.run_dir)).reward
        reward = load_latent_reward(folder, recipe.policy, recipe.sampling)
        found.append(dict(reward.named_parameters()))
    assert digest(found[0]) == digest(found[1])
    lines = RunFolder(Path(parts.run_dir)).metrics.read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    assert [row["step"] for row in metrics] == [0, 1, 2, 3]
    assert metrics[3]["train/loss"] < metrics[0]["train/loss"]
    judged = json.loads((tmp_path / "whole/reward/held_out.json").read_text())
    assert judged["times"] == [0.1, 0.9]
    assert judged["num_pairs"] == {"bright": 6, "dark": 6}
    assert judged["accuracy"]["bright"][0] == metrics[3]["held_out/accuracy_bright_t0.1"]
    assert (tmp_path / "whole/reward/held_out.svg").read_text().startswith("<svg")


def test_rewards_of_prompts_with_pictures_are_trained(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Two pictures with the same text: the labels name them, and the reward sees them."""
    other = str(tmp_path / "other.png")
    Image.new("RGB", (20, 20), (250, 20, 20)).save(other)
    prompts = [TextAndImage(PROMPTS[0], image) for image in (str(PICTURE), other)]
    recipe = recipe_for(tmp_path, tiny_checkpoints, tmp_path / "run")
    recipe.policy = tiny_policy(tiny_checkpoints["wan_i2v"], "wan_i2v")
    recipe.sampling = tiny_sampling("wan_i2v")
    policy = load_policy(recipe.policy, recipe.sampling, parts=PARTS)
    groups = sample_scored_latents(tmp_path / "train", policy, brightness, prompts, 2, seed=0)
    assert [read_video(files[0]).condition for files in groups] == prompts
    write_pairs(tmp_path / "train.csv", groups, same_band=0.0)
    task = load_latent_reward_task(recipe)
    pairs = read_pairs(tmp_path / "train.csv", None, DIMENSIONS, with_images=True).pairs
    assert [pair.condition for pair in pairs] == prompts
    seen = [task._embeds[pair.condition]["image_latents"] for pair in pairs]
    assert not torch.equal(*seen)
    assert trained(recipe)
    reward = load_latent_reward(RunFolder(tmp_path / "run").reward, recipe.policy, recipe.sampling)
    x_t = read_latents(groups[0][0])[None].repeat(2, 1, 1, 1, 1)
    both = reward(x_t, torch.full((2,), 0.5), [task._embeds[prompt] for prompt in prompts])
    assert not torch.allclose(both[0], both[1])
    rows = list(csv.reader((tmp_path / "train.csv").open()))
    with (tmp_path / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows(row[:-1] for row in rows)
    with pytest.raises(DatasetError, match="has no column 'image'"):
        load_latent_reward_task(recipe)


def test_unreadable_latents_are_skipped_and_counted(
    labelled: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    recipe = recipe_for(labelled, tiny_checkpoints, tmp_path)
    task = load_latent_reward_task(recipe)
    pair = read_pairs(labelled / "train.csv", None, DIMENSIONS).pairs[0]
    content = pair.path_b.read_bytes()
    pair.path_b.write_bytes(content[:50])
    try:
        assert task.losses([0]).num_skipped > 0
        predictions_NK = task.predict(range(6))
        assert not predictions_NK[0].isfinite().any()
        assert task.judge(predictions_NK)["held_out/skipped"] >= 1
    finally:
        pair.path_b.write_bytes(content)


def test_accuracy_by_hand() -> None:
    margins_NTK = np.array(
        [[[1, 2], [-1, 0]], [[-3, 1], [1, 1]], [[5, 5], [5, 5]], [[np.nan, 1], [1, 1]]], np.float32
    )
    labels_NK = np.array([[1, 0], [-1, INVALID], [0, -1], [1, 1]])
    found = AccuracyByTime.of(margins_NTK, labels_NK, [0.2, 0.8], ["p", "q"])
    # p: pairs 0 and 1 have a preference; both right at 0.2, both wrong at 0.8. q: only pair 2.
    assert found.accuracy == {"p": (1.0, 0.0), "q": (0.0, 0.0)}
    assert found.num_pairs == {"p": 2, "q": 1}
    assert found.metrics()["held_out/accuracy_p"] == 0.5
    nothing = AccuracyByTime.of(margins_NTK, np.zeros((4, 2), int), [0.2, 0.8], ["p", "q"])
    assert nothing.accuracy["p"] == (None, None)
    assert nothing.metrics() == {}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.head=transformer", r"model\.head must be one of mean, attention"),
        ("model.train=everything", r"model\.train must be one of head, lora, blocks"),
        ("model.dimensions=[a,a]", r"model\.dimensions must name at least one, each once"),
        ("noise.judged=[0.5,1.5]", r"noise\.judged must be times in \[0, 1\]"),
        ("noise.shift=0", r"noise\.shift must be > 0"),
        ("policy.lora.initial=x", r"policy\.lora\.initial must be left out"),
        ("learner.num_workers=2", r"learner\.num_workers must be 1"),
        ("model.layers=2", r"unknown key model\.layers.*model\.num_layers"),
    ],
)
def test_bad_settings_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_latent_reward_recipe("moving_shapes", [override])
