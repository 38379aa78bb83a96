"""What a start replaces is kept: beside the archive until a checkpoint covers it, or for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.groups import scored_group
from videorl.config import CheckpointConfig, Recipe
from videorl.data.archive import Archive, check, committed_steps
from videorl.errors import RunFolderError
from videorl.files import superseded
from videorl.recipes.reading import load_recipe
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.checkpoints import CheckpointFolder
from videorl.run.folder import open_run
from videorl.run.sinks import JsonlSink, read_metrics
from videorl.types import StepRecord, WeightVersion


def archived(root: Path, num_steps: int) -> Archive:
    archive = Archive(root / "archive", "none", keep_latents=False)
    version = WeightVersion(0, "digest")
    for step in range(num_steps):
        archive.write(StepRecord(step, (), (scored_group([]),), (), version, version, version))
    return archive


def test_steps_after_a_checkpoint_wait_for_the_next_one(tmp_path: Path) -> None:
    archive = archived(tmp_path, 4)
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    for step in range(4):
        sink.write(step, {"x": step})
    for _ in range(2):  # the second resume finds nothing more to cut off
        archive.truncate(1)
        sink.truncate(1)
    assert committed_steps(tmp_path / "archive") == [0]
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0]
    kept = tmp_path / "superseded"
    assert committed_steps(kept / "archive") == [1, 2, 3]
    assert check(kept / "archive", 4) == ["step 0 is missing"]
    assert [row["step"] for row in read_metrics(kept / "metrics.jsonl")] == [1, 2, 3]
    CheckpointNote(tmp_path, CheckpointConfig()).saved(2)
    assert committed_steps(kept / "archive") == [2, 3], "the checkpoint does not cover these again"
    sink.write(1, {"x": 1})
    sink.truncate(1)  # by a crash before the next checkpoint
    assert [row["step"] for row in read_metrics(kept / "metrics.jsonl")] == [1, 2, 3]
    CheckpointNote(tmp_path, CheckpointConfig()).saved(4)
    assert not kept.exists()
    assert committed_steps(tmp_path / "archive") == [0]


def test_a_truncation_that_was_interrupted_goes_on_with_what_it_had_begun(tmp_path: Path) -> None:
    archive = archived(tmp_path, 2)
    superseded.move(tmp_path / "archive/candidates/step-000001.parquet", tmp_path)
    archive.truncate(1)
    assert check(tmp_path / "superseded/archive", 2) == ["step 0 is missing"]


def test_checkpoints_elsewhere_are_not_gone_on_with_by_a_run_from_scratch(tmp_path: Path) -> None:
    there = tmp_path / "there"
    settings = [f"run_dir={tmp_path}/run", f"checkpoint.location={there}"]
    recipe = load_recipe("moving_shapes", settings)
    with open_run(recipe) as folder:
        archived(folder.root, 1)
    CheckpointFolder(there, keep=1).write(1, {}, {"step": 1})
    with (
        pytest.raises(RunFolderError, match="the newest of step 1"),
        open_run(recipe, from_scratch=True),
    ):
        pass
    assert committed_steps(tmp_path / "run/archive") == [0]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe("moving_shapes", [f"run_dir={tmp_path / 'run'}"])


def test_beginning_anew_leaves_the_old_run_beside_the_new_one(
    recipe: Recipe, tmp_path: Path
) -> None:
    with open_run(recipe) as folder:
        archived(folder.root, 2)
    with open_run(recipe) as folder:
        assert committed_steps(folder.archive) == [0, 1], "the same command goes on"
    recipe.seed += 1  # which a resume would refuse
    for number in (1, 2):
        with open_run(recipe, from_scratch=True) as folder:
            assert committed_steps(folder.archive) == []
            aside = sorted(tmp_path.glob("run.old-*"))
            assert len(aside) == number
            assert committed_steps(aside[0] / "archive") == [0, 1]
            assert (aside[0] / "config.yaml").exists()


def test_a_new_folder_has_nothing_to_keep(recipe: Recipe, tmp_path: Path) -> None:
    with open_run(recipe, from_scratch=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
