"""VideoScore in training: published label formats, regression, the exported checkpoint."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.reward_cases import FIXTURES
from tests.rewards_in_training import local_trainer
from videorl import rewards
from videorl.errors import ConfigError, DatasetError
from videorl.reward_training.config import RewardRecipe
from videorl.reward_training.ratings import COLUMNS, read_ratings
from videorl.reward_training.recipes import load_reward_recipe
from videorl.reward_training.video_score_task import load_video_score_task
from videorl.rewards.video_score.model import VideoScore

FIXTURE = FIXTURES / "video_score"
ROWS = [
    ("vs_pub_1", "a cat runs", 1.0, 2.0, 3.0, 1.5, 2.5),
    ("vs_pub_2", "a dog", 3.0, 4.0, 1.0, 2.0, 2.0),
    ("gone", "a dog", 1.0, 1.0, 1.0, 1.0, 1.0),
]


def write(folder: Path, kind: str) -> Path:
    path, rows = folder / f"labels.{kind}", [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    if kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_ratings_are_read_from_every_format(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    with caplog.at_level(logging.WARNING):
        found = read_ratings(write(tmp_path, kind), FIXTURE)
    assert [video.path.name for video in found] == ["vs_pub_1.mp4", "vs_pub_2.mp4"]
    assert found[0].ratings == ROWS[0][2:]
    place = {"csv": "line 4", "json": "item 3", "parquet": "row 3"}[kind]
    assert f"{place} skipped: there is no file" in caplog.text


def test_separators_and_commas_inside_of_a_prompt_divide_no_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, ratings = tmp_path / "labels.csv", ",1,2,3,1.5,2.5"
    prompts = ["a\u2028b", "a\x85b", "a\x0cb", '"a\nb, c"']
    rows = [f"vs_pub_1,{prompt}{ratings}" for prompt in prompts]
    rows += [f"vs_pub_1,a, b{ratings}", "vs_pub_1,x,nan,2,3,1.5,2.5"]
    path.write_text("\n".join([",".join(COLUMNS), *rows]), encoding="utf-8")
    found = read_ratings(path, FIXTURE)
    assert [video.prompt for video in found] == ["a\u2028b", "a\x85b", "a\x0cb", "a\nb, c"]
    assert "line 7 skipped: has 8 fields, but the header has 7" in caplog.text
    assert "line 8 skipped: visual quality must be a finite number, got 'nan'" in caplog.text


def test_unusable_ratings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text('[{"id": "vs_pub_1", "text prompt": "x"}]')
    with pytest.raises(DatasetError, match="item 1: has no column 'visual quality', but id"):
        read_ratings(path, FIXTURE)
    path.write_text("{")
    with pytest.raises(DatasetError, match="line 1, character 2: is not JSON"):
        read_ratings(path, FIXTURE)
    with pytest.raises(DatasetError, match=r"of no kind that is read: \.csv, \.jsonl"):
        read_ratings(path.rename(tmp_path / "labels.txt"), FIXTURE)
    with pytest.raises(DatasetError, match="no usable row"):
        read_ratings(write(tmp_path, "csv"), tmp_path)


def regression_recipe(folder: Path) -> RewardRecipe:
    recipe = RewardRecipe(name="tiny", num_steps=3)
    recipe.model.name, recipe.model.base, recipe.model.max_num_frames = (
        "video_score",
        str(FIXTURE),
        4,
    )
    recipe.model.lora.rank = 0
    labels = str(write(folder, "csv"))
    recipe.labels.train = recipe.labels.held_out = labels
    recipe.labels.videos, recipe.labels.batch_size = str(FIXTURE), 2
    recipe.learner.micro_batch_size = 2
    recipe.optimizer.learning_rate = 1e-2
    return recipe


def test_regression_lowers_the_error_and_the_export_scores_as_the_live_network(
    tmp_path: Path,
) -> None:
    recipe = regression_recipe(tmp_path)
    trainer = local_trainer(recipe, tmp_path / "checkpoints")
    found = [trainer.step(step) for step in range(3)]
    assert found[2]["train/loss"] < 0.8 * found[0]["train/loss"]
    live_NK = trainer.predictions()
    assert live_NK is not None
    trainer.export(tmp_path / "reward")
    model = rewards.load("video_score", str(tmp_path / "reward"), max_num_frames=4)
    assert isinstance(model, VideoScore)
    videos = [FIXTURE / f"{row[0]}.mp4" for row in ROWS[:2]]
    scores = model.score(videos, [row[1] for row in ROWS[:2]])
    raw_NK = torch.tensor([list(score.raw.values()) for score in scores])
    torch.testing.assert_close(raw_NK, live_NK, rtol=0, atol=1e-5)
    ratings_NK = torch.tensor([row[2:] for row in ROWS[:2]])
    judged = found[2]["held_out/loss"]
    assert judged == pytest.approx((live_NK - ratings_NK).square().mean().item(), rel=1e-4)


def test_loss_is_the_mean_squared_error(tmp_path: Path) -> None:
    task = load_video_score_task(regression_recipe(tmp_path), torch.device("cpu"))
    expected_N = (task.predict([0, 1]) - torch.tensor([row[2:] for row in ROWS[:2]])) ** 2
    torch.testing.assert_close(task.losses([0, 1]).loss_N.detach(), expected_N.mean(1))


def test_no_weight_is_drawn_and_the_base_is_copied(tmp_path: Path) -> None:
    recipe, base = regression_recipe(tmp_path), tmp_path / "base"
    shutil.copytree(FIXTURE, base)
    file = base / "model.safetensors"
    wanted = {name: tensor.float() for name, tensor in load_file(file).items()}
    save_file(wanted, file)
    recipe.model.base = str(base)
    before = torch.get_rng_state()
    network = load_video_score_task(recipe, torch.device("cpu")).module
    assert torch.equal(before, torch.get_rng_state()), "weights were drawn, only to be replaced"
    assert all(torch.equal(value, wanted[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()  # the file is memory-mapped
    assert torch.equal(load_file(file)["score.weight"], wanted["score.weight"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradient_checkpointing_keeps_less_and_changes_no_gradient(
    tmp_path: Path, dtype: str
) -> None:
    found: list[tuple[int, list[Tensor]]] = []
    for is_on in (False, True):
        recipe = regression_recipe(tmp_path)
        recipe.model.gradient_checkpointing, recipe.model.dtype = is_on, dtype
        task = load_video_score_task(recipe, torch.device("cpu"))
        task.module.train()
        kept: list[int] = []

        def keep(tensor: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = task.losses([0, 1]).loss_N.sum()
        num_kept = sum(kept)
        loss.backward()
        gradients = [one.grad for one in task.module.parameters() if one.grad is not None]
        found.append((num_kept, gradients))
    (kept_without, without), (kept_with, checkpointed) = found
    assert kept_with < kept_without / 2
    assert len(without) == len(checkpointed) > 0
    assert all(map(torch.equal, without, checkpointed))


def test_adapters_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.lora\.rank must be 0 for video_score"):
        load_reward_recipe("video_reward", ["labels.train=x", "model.name=video_score"])
