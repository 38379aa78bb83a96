"""A reward model trained on Ray Train and DeepSpeed has the numbers of plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from actors.learner.rank_group import LearnerResources
from actors.learner.reward_rank import RayRewardTrainer
from tests.ray.ranks import kill_rank
from tests.rewards_in_training import local_trainer, reward_recipe, write_labels_and_base
from videorl import rewards
from videorl.errors import LearnerFailedError
from videorl.reward_training.config import RewardRecipe
from videorl.reward_training.fit import Trainer, fit
from videorl.reward_training.pairs import read_pairs
from videorl.rewards.video_reward.model import VideoReward

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster")]


@pytest.fixture
def recipe(tmp_path: Path) -> RewardRecipe:
    """A recipe on real files; without dropout, which depends on how a batch is split."""
    made = reward_recipe(write_labels_and_base(tmp_path / "pairs"))
    made.model.lora.dropout = 0.0
    made.optimizer.learning_rate = 1e-3
    made.learner.num_workers, made.learner.zero_stage = 2, 2
    return made


@pytest.fixture
def trainers() -> Iterator[list[RayRewardTrainer]]:
    """Trainers that end with the test."""
    started: list[RayRewardTrainer] = []
    yield started
    for trainer in started:
        trainer.close()


class Rows:
    """A sink that keeps what it gets, and kills a rank after the third step."""

    def __init__(self, kills: bool) -> None:
        self.rows: list[Mapping[str, float]] = []
        self._kills = kills

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        assert step == len(self.rows)
        self.rows.append(metrics)
        if step == 2 and self._kills:
            kill_rank()

    def truncate(self, step: int) -> None:
        self.rows = self.rows[:step]

    def close(self) -> None:
        pass


def trained(
    recipe: RewardRecipe, trainer: Trainer, folder: Path, kills: bool
) -> tuple[list[Mapping[str, float]], list[dict[str, Any]]]:
    """Return the metrics of a training and what the exported model says of the held-out videos."""
    sink = Rows(kills)
    assert fit(recipe, trainer, sink, folder, lambda: False)
    model = rewards.load("video_reward", str(folder))
    assert isinstance(model, VideoReward)
    pairs = read_pairs(Path(recipe.labels.held_out)).pairs
    scores = model.score([pair.path_a for pair in pairs], [pair.prompt for pair in pairs])
    return sink.rows, [dict(score.raw) for score in scores]


def test_two_ranks_give_the_numbers_of_plain_pytorch_and_survive(
    recipe: RewardRecipe, trainers: list[RayRewardTrainer], tmp_path: Path
) -> None:
    local = local_trainer(recipe, tmp_path / "local")
    expected, expected_scores = trained(recipe, local, tmp_path / "a", kills=False)
    trainers.append(RayRewardTrainer(recipe, tmp_path, LearnerResources(2, 1.0, 0.0), str))
    found, scores = trained(recipe, trainers[0], tmp_path / "b", kills=True)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in (name for name in one if not name.startswith("time/")):
            assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4), name
    for one, other in zip(scores, expected_scores, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_a_training_that_can_never_start_says_why(
    recipe: RewardRecipe, trainers: list[RayRewardTrainer], tmp_path: Path
) -> None:
    recipe.learner.num_workers = 1
    Path(recipe.labels.train).write_text("path_A,path_B\n")
    trainers.append(RayRewardTrainer(recipe, tmp_path, LearnerResources(1, 1.0, 0.0), str))
    with pytest.raises(LearnerFailedError, match="has no column"):
        trainers[0].start()
