"""A run never begins anew over what it has done, wherever its checkpoints are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.small_runs import small_recipe
from videorl import one_process
from videorl.config import Recipe
from videorl.data.archive import committed_steps
from videorl.errors import CheckpointError, RunFolderError
from videorl.recipes.reading import load_recipe
from videorl.run.checkpoint_note import NOTE, CheckpointNote
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import read_metrics


def go(recipe: Recipe, steps: int) -> RunFolder:
    """Train until `steps` in this process, as the same command would."""
    recipe.num_steps = steps
    with open_run(recipe) as folder:
        work = one_process.train_online if recipe.learns_online else one_process.train_alone
        assert work(recipe, folder, lambda: False)
    return folder


@pytest.fixture(scope="module")
def trained(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder after two steps, with a checkpoint of each."""
    made = small_recipe("moving_shapes", tiny_checkpoints, tmp_path_factory.mktemp("run") / "run")
    made.checkpoint.interval = 1
    return go(made, 2).root


@pytest.fixture
def recipe(trained: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Recipe:
    """The same run, somewhere else."""
    shutil.copytree(trained, tmp_path / "run")
    made = small_recipe("moving_shapes", tiny_checkpoints, tmp_path / "run")
    made.checkpoint.interval = 1
    return made


def kept(root: Path) -> tuple[list[int], int, object]:
    """Return what of a run must not be lost: archived steps, metrics, where its checkpoints are."""
    rows = read_metrics(root / "metrics.jsonl")
    saved = yaml.safe_load((root / "config.yaml").read_text())
    return committed_steps(root / "archive"), len(rows), saved["checkpoint"]["location"]


def test_a_moved_folder_goes_on(recipe: Recipe) -> None:
    assert committed_steps(go(recipe, 3).archive) == [0, 1, 2]


def test_a_location_that_has_no_checkpoints_is_refused_and_the_old_one_named(
    recipe: Recipe, tmp_path: Path
) -> None:
    before = kept(Path(recipe.run_dir))
    recipe.checkpoint.location = str(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError) as refused:
        go(recipe, 3)
    said = str(refused.value)
    assert f"{recipe.run_dir} holds a run (it got to step 2; " in said
    assert f"there is no checkpoint in {tmp_path / 'elsewhere'}. Beginning anew would" in said
    assert f"{recipe.run_dir}/checkpoints still has that of step 2" in said
    assert 'set checkpoint.location="" again, or put the checkpoints into' in said
    assert kept(Path(recipe.run_dir)) == before
    shutil.move(f"{recipe.run_dir}/checkpoints", tmp_path / "elsewhere")
    assert committed_steps(go(recipe, 3).archive) == [0, 1, 2]
    recipe.checkpoint.location = ""
    with pytest.raises(RunFolderError, match=f"has that of step 3.*={tmp_path / 'elsewhere'}"):
        go(recipe, 4)


@pytest.mark.parametrize("noted", [True, False])
def test_checkpoints_that_are_gone_are_missed(recipe: Recipe, noted: bool) -> None:
    root = Path(recipe.run_dir)
    before = kept(root)
    shutil.rmtree(root / "checkpoints")
    if not noted:  # as a version that wrote no note left it
        (root / NOTE).unlink()
    wanted = rf"got to step 2.*no checkpoint in {root}/checkpoints\..*set another run_dir"
    with pytest.raises(RunFolderError, match=wanted):
        go(recipe, 2)
    assert kept(root) == before


def test_a_run_of_an_older_version_is_not_begun_anew_elsewhere(
    recipe: Recipe, tmp_path: Path
) -> None:
    (Path(recipe.run_dir) / NOTE).unlink()
    before = kept(Path(recipe.run_dir))
    recipe.checkpoint.location = str(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="checkpoints still has that of step 2"):
        go(recipe, 3)
    assert kept(Path(recipe.run_dir)) == before


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(
    recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    root = Path(recipe.run_dir)
    shutil.rmtree(root / "checkpoints")
    (root / NOTE).unlink()
    shutil.move(root / "archive", root / "kept")
    (root / "metrics.jsonl").unlink()
    CheckpointNote(root, recipe.checkpoint).restored(None)
    shutil.move(root / "kept", root / "archive")
    assert committed_steps(go(recipe, 2).archive) == [0, 1]
    assert "was cut off after step 2, before its first checkpoint" in caplog.text


def test_checkpoints_of_another_run_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    recipe.checkpoint.location = f"{recipe.run_dir}/checkpoints"
    recipe.run_dir = str(tmp_path / "new")
    with pytest.raises(RunFolderError, match=r"are of another run than .*/new") as refused:
        go(recipe, 3)
    text = str(refused.value).partition("write ")[2].partition(" into")[0]
    (tmp_path / "new" / NOTE).write_text(text)
    assert committed_steps(go(recipe, 3).archive) == [2]


def test_a_learner_alone_is_not_begun_anew_either(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    made = small_recipe("moving_shapes_refl", tiny_checkpoints, tmp_path / "run")
    made.checkpoint.interval = 1
    go(made, 1)
    shutil.rmtree(tmp_path / "run/checkpoints")
    with pytest.raises(RunFolderError, match=r"got to step 1; its checkpoint of step 1 was"):
        go(made, 2)
    assert len(read_metrics(tmp_path / "run/metrics.jsonl")) == 1


def test_an_old_place_that_cannot_be_reached_does_not_hinder_a_new_one(
    recipe: Recipe, tmp_path: Path
) -> None:
    shutil.move(f"{recipe.run_dir}/checkpoints", tmp_path / "elsewhere")
    note = json.loads((Path(recipe.run_dir) / NOTE).read_text())
    note["location"] = "gone://nowhere"
    (Path(recipe.run_dir) / NOTE).write_text(json.dumps(note))
    recipe.checkpoint.location = str(tmp_path / "nothing")
    with pytest.raises(RunFolderError, match=r"step 2 was written to gone://nowhere"):
        go(recipe, 3)
    recipe.checkpoint.location = str(tmp_path / "elsewhere")
    assert committed_steps(go(recipe, 3).archive) == [0, 1, 2]


def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for place in (tmp_path / "file", Path("/proc/none/checkpoints"), f"file://{tmp_path}/file/x"):
        recipe = load_recipe(
            "moving_shapes", [f"run_dir={tmp_path / 'run'}", f"checkpoint.location={place}"]
        )
        wanted = r"cannot be written to|cannot use"
        with pytest.raises(CheckpointError, match=wanted), open_run(recipe):
            pass
    assert (tmp_path / "file").read_text() == "kept"
    uri = f"checkpoint.location=file://{tmp_path}/store"
    with open_run(load_recipe("moving_shapes", [f"run_dir={tmp_path / 'other'}", uri])):
        assert list((tmp_path / "store").iterdir()) == [], "nothing of the probe stays"
