"""`learner.micro_batch_size: auto` is a number wherever a learner has a GPU, and 16 elsewhere."""

from __future__ import annotations

import logging

import pytest

from videorl.config import Recipe
from videorl.errors import ConfigError
from videorl.planning.fitting import peaks, with_micro_batch
from videorl.recipes.reading import load_recipe


def recipe(name: str = "moving_shapes", size: str = "auto") -> Recipe:
    return load_recipe(name, [f"learner.micro_batch_size={size}"])


@pytest.mark.parametrize("size", ["auto", "3"])
def test_without_a_gpu_nothing_is_decided(size: str) -> None:
    chosen = recipe(size=size)
    assert with_micro_batch(chosen, 0.0) is chosen
    assert chosen.learner.videos_at_once == (16 if size == "auto" else 3)


def test_as_many_videos_as_fit_and_whole_pairs(caplog: pytest.LogCaptureFixture) -> None:
    """Beside the learner's two gigabytes for DeepSpeed, a video of this size takes a few MiB."""
    caplog.set_level(logging.INFO)
    number = with_micro_batch(recipe(), 2.1).learner.videos_at_once
    assert 1 < number < 64
    assert number % 2 == 0
    assert f"learner.micro_batch_size=auto is {number}" in caplog.text


def test_what_does_not_fit_is_tried_one_by_one_and_said(caplog: pytest.LogCaptureFixture) -> None:
    assert with_micro_batch(recipe(), 0.5).learner.micro_batch_size == 1
    assert "by the plan a video needs" in caplog.text


def test_the_peaks_of_all_roles_are_named() -> None:
    said = peaks(recipe())
    for role in ("learner", "generator", "encoder"):
        assert f"{role} " in said
    assert peaks(load_recipe("moving_shapes", ["policy.path=./nowhere"])) == ""


def test_what_cannot_be_planned_takes_one_video_at_a_time() -> None:
    unknown = ["policy.path=./nowhere", "learner.micro_batch_size=auto"]
    made = with_micro_batch(load_recipe("moving_shapes", unknown), 80.0)
    assert made.learner.micro_batch_size == 1


@pytest.mark.parametrize("size", ["0", "many"])
def test_other_values_are_refused(size: str) -> None:
    with pytest.raises(ConfigError, match=r"learner\.micro_batch_size must be "):
        recipe(size=size)
