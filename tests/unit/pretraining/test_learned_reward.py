"""The reward learned from labels of Moving Shapes: its data, its base, and what is shipped."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from videorl import rewards
from videorl.data.video_io import read_video
from videorl.pretraining.labelled_pairs import Raters, write_labelled_pairs
from videorl.pretraining.reward_base import save_reward_base
from videorl.reward_training.pairs import LABELS, read_pairs
from videorl.reward_training.video_reward_adapters import load_untrained
from videorl.rewards.moving_shapes import MovingShapesReward
from videorl.rewards.video_reward.model import VideoReward
from videorl.rewards.video_reward.prompt import questionnaire_of_base
from videorl.worlds.grammar import prompts


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "labels.csv"
    write_labelled_pairs(path, "held_out", 32, 7, Raters(same_band=0.3, noise=0.0))
    return path


def test_labels_are_those_of_the_oracle(labels: Path) -> None:
    pairs, oracle = read_pairs(labels).pairs, MovingShapesReward()
    assert {pair.prompt for pair in pairs} <= set(prompts("held_out"))
    # The clips were labelled before they were compressed: small margins may have changed sides.
    agreed = []
    for pair in pairs:
        a, b = oracle.score([read_video(pair.path_a), read_video(pair.path_b)], [pair.prompt] * 2)
        for label, name in zip(pair.labels, oracle.dimensions, strict=True):
            margin = a.dimensions[name] - b.dimensions[name]
            agreed.append(label == (0 if abs(margin) < 0.3 else 1 if margin > 0 else -1))
    assert sum(agreed) / len(agreed) > 0.9
    assert {label for pair in pairs for label in pair.labels} == {0, 1, -1}


def test_equal_seeds_give_equal_files_and_noise_changes_labels_only(
    labels: Path, tmp_path: Path
) -> None:
    again, noisy = tmp_path / "labels.csv", tmp_path / "noisy.csv"
    write_labelled_pairs(again, "held_out", 4, 7, Raters(same_band=0.3, noise=0.0))
    write_labelled_pairs(noisy, "held_out", 4, 7, Raters(same_band=0.3, noise=1.0))
    assert again.read_text().splitlines() == labels.read_text().splitlines()[:5]
    for name in ("000003A.mp4", "000003B.mp4"):
        first, other, third = (path.with_suffix("") / name for path in (labels, again, noisy))
        assert first.read_bytes() == other.read_bytes() == third.read_bytes()
    with noisy.open() as file:
        rows = list(csv.DictReader(file))
    assert {row[name] for row in rows for name in ("VQ", "MQ", "TA")} <= set(LABELS)


def test_the_untrained_base_is_a_qwen2_vl_whose_questions_are_short(tmp_path: Path) -> None:
    folder = save_reward_base(tmp_path / "base", 3)
    questionnaire = questionnaire_of_base(folder)
    assert len(questionnaire.ask("a small red circle moving left", 16)) < 50
    assert questionnaire.ask("naïve 雨", 16) != questionnaire.ask("a", 16)
    vocabulary = questionnaire.tokenizer.get_vocab_size()
    first, same = (load_untrained(folder, vocabulary, 5).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], same[name]) for name in first)


def test_the_shipped_reward_prefers_what_the_labels_prefer(labels: Path) -> None:
    model = rewards.load("video_reward", "moving_shapes_reward")
    assert isinstance(model, VideoReward)
    pairs = read_pairs(labels).pairs
    videos = [path for pair in pairs for path in (pair.path_a, pair.path_b)]
    scores = model.score(videos, [pair.prompt for pair in pairs for _ in "AB"])
    right: dict[str, list[bool]] = {name: [] for name in model.dimensions}
    for number, pair in enumerate(pairs):
        a, b = scores[2 * number : 2 * number + 2]
        for label, name in zip(pair.labels, model.dimensions, strict=True):
            if label:
                right[name].append((a.dimensions[name] > b.dimensions[name]) == (label > 0))
    assert all(sum(found) / len(found) > 0.65 for found in right.values()), right
