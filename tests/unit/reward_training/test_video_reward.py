"""VideoReward in training: what moves, what is exported, what bad data costs, resuming."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rewards_in_training import local_trainer, reward_recipe, write_labels_and_base
from videorl import rewards
from videorl.errors import CheckpointError, DatasetError
from videorl.learning.engines.local import LocalEngine
from videorl.reward_training.fit import fit
from videorl.reward_training.pairs import read_pairs
from videorl.reward_training.trainer import RewardTrainer
from videorl.reward_training.video_reward_export import published_tensors
from videorl.reward_training.video_reward_task import load_video_reward_task
from videorl.rewards.video_reward.model import VideoReward
from videorl.run.checkpoints import CheckpointFolder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labels_and_base(tmp_path_factory.mktemp("pairs"))


class Rows:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}

    def write(self, step: int, metrics: Any) -> None:
        self.rows[step] = {k: v for k, v in metrics.items() if not k.startswith("time/")}

    def truncate(self, step: int) -> None:
        self.rows = {at: row for at, row in self.rows.items() if at < step}

    def close(self) -> None:
        pass


@pytest.mark.parametrize("rank", [4, 0])
def test_a_trained_model_is_loaded_with_the_scores_of_the_live_network(
    folder: Path, tmp_path: Path, rank: int
) -> None:
    recipe = reward_recipe(folder, rank=rank)
    trainer, sink = local_trainer(recipe, tmp_path / "checkpoints"), Rows()
    assert fit(recipe, trainer, sink, tmp_path / "reward", lambda: False)
    live_NK = trainer.predictions()
    assert live_NK is not None
    model = rewards.load("video_reward", str(tmp_path / "reward"))
    pairs = read_pairs(folder / "held_out.csv").pairs
    assert isinstance(model, VideoReward)
    scores = model.score(
        [path for pair in pairs for path in (pair.path_a, pair.path_b)],
        [pair.prompt for pair in pairs for _ in "AB"],
    )
    raw_NK = torch.tensor([list(score.raw.values()) for score in scores]).reshape(len(pairs), 6)
    torch.testing.assert_close(raw_NK, live_NK, rtol=0, atol=1e-5)
    # Scores are normalised over the held-out videos.
    totals_BK = torch.tensor([list(score.dimensions.values()) for score in scores])
    torch.testing.assert_close(totals_BK.mean(0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(totals_BK.std(0), torch.ones(3), rtol=0, atol=1e-4)
    assert {"held_out/loss", "held_out/skipped"} <= sink.rows[1].keys() <= sink.rows[3].keys()
    assert "held_out/loss" not in sink.rows[0]


def test_with_lora_only_what_is_published_as_trained_moves(folder: Path, tmp_path: Path) -> None:
    recipe = reward_recipe(folder)
    recipe.model.train_vision = False
    untrained, task = load_video_reward_task(recipe, CPU), load_video_reward_task(recipe, CPU)
    engine = LocalEngine(task.module, recipe.optimizer)
    trainer = RewardTrainer(task, engine, recipe, CheckpointFolder(tmp_path, 1))
    for step in range(2):
        trainer.step(step)
    before, after = untrained.module.state_dict(), task.module.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    kinds = {"lora_A": 14, "lora_B": 14, "rows": 1, "rm_head": 1}  # 7 layers in each of 2 blocks
    assert {kind: sum(kind in name for name in moved) for kind in kinds} == kinds
    assert len(moved) == sum(kinds.values())
    name = "base_model.model.model.embed_tokens.weight"
    old_VD, new_VD = (published_tensors(model.module)[name] for model in (untrained, task))
    changed = (old_VD != new_VD).any(1).nonzero().flatten().tolist()
    assert changed == [len(new_VD) - 3, len(new_VD) - 2, len(new_VD) - 1]


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_stopped_training_ends_with_the_same_weights(
    folder: Path, tmp_path: Path, stop_after: int
) -> None:
    recipe = reward_recipe(folder)
    sink = Rows()
    fit(recipe, local_trainer(recipe, tmp_path / "a"), sink, tmp_path / "whole", lambda: False)
    again = Rows()
    first = local_trainer(recipe, tmp_path / "b")
    assert not fit(recipe, first, again, tmp_path / "part", lambda: len(again.rows) == stop_after)
    assert not (tmp_path / "part").exists()
    again.rows[99] = {}  # a step after the checkpoint: computed once more
    second = local_trainer(recipe, tmp_path / "b")
    assert fit(recipe, second, again, tmp_path / "part", lambda: False)
    assert again.rows == sink.rows
    files = [torch.load(tmp_path / f"{name}/checkpoint-4/model.pth") for name in ("whole", "part")]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


def test_a_damaged_video_gives_its_place_to_the_next(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copied = tmp_path / "pairs"
    shutil.copytree(folder, copied)
    (copied / "train/000002A.mp4").write_bytes(b"torn")
    (copied / "held_out/000001B.mp4").write_bytes(b"torn")
    live = load_video_reward_task(reward_recipe(copied), CPU)
    live.module.eval()
    with caplog.at_level(logging.WARNING):
        found, other = live.losses([1, 2]), live.losses([1, 3])
        assert live.losses([2]).num_skipped == 1
    assert (found.num_skipped, other.num_skipped) == (1, 0)
    torch.testing.assert_close(found.loss_N, other.loss_N)
    assert caplog.text.count("example 2 skipped") == 1
    predictions_NK = live.predict(range(5))
    assert predictions_NK.isnan().any(1).tolist() == [False, True, False, False, False]
    judged = live.judge(predictions_NK)
    assert judged["held_out/skipped"] == 1
    assert all(value == value for value in judged.values())
    for path in (copied / "train").glob("*.mp4"):
        path.write_bytes(b"torn")
    with pytest.raises(DatasetError, match="none of 7 labelled examples can be read"):
        load_video_reward_task(reward_recipe(copied), CPU).losses([0])


def test_bases_that_lack_something_are_refused(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "pairs"
    shutil.copytree(folder, copied)
    recipe = reward_recipe(copied)
    (copied / "base/tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"base/tokenizer\.json is missing"):
        load_video_reward_task(recipe, CPU)
    shutil.copy(folder / "base/tokenizer.json", copied / "base")
    settings = json.loads((copied / "base/config.json").read_text())
    settings["text_config"]["num_hidden_layers"] = 3
    settings["text_config"]["layer_types"] = ["full_attention"] * 3
    (copied / "base/config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="lacks 12 tensors of a Qwen2-VL model"):
        load_video_reward_task(recipe, CPU)
    (copied / "base/model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is not a readable Qwen2-VL model"):
        load_video_reward_task(recipe, CPU)
