"""Checkpoints in slices; on several ranks of DeepSpeed see `engines/test_deepspeed.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.learners import run_steps, tiny_learner, tiny_recipe
from videorl.config import OptimizerConfig, Recipe
from videorl.errors import CheckpointError
from videorl.learning.engines.local import LocalEngine
from videorl.learning.engines.slices import cut, read_slices, write_slices
from videorl.learning.saving import MANY, Saving
from videorl.run.checkpoints import CheckpointFolder


def recipe_of(*, sharded: bool) -> Recipe:
    recipe = tiny_recipe()
    recipe.checkpoint.sharded = sharded
    return recipe


@pytest.mark.parametrize("saved", [True, False])
def test_either_kind_is_restored_whatever_the_setting_says_now(saved: bool, tmp_path: Path) -> None:
    learner, _ = tiny_learner(recipe_of(sharded=saved), tmp_path)
    learner.start()
    run_steps(learner, 0, 2)
    learner.save({"step": 2}).result()
    expected = [output.version for output in run_steps(learner, 2, 4)]
    assert (tmp_path / "step-000002/optimizer").is_dir() == saved
    assert (tmp_path / "step-000002/optimizer.safetensors").exists() != saved
    again, _ = tiny_learner(recipe_of(sharded=not saved), tmp_path)
    again.start()
    assert [output.version for output in run_steps(again, 2, 4)] == expected


def test_auto_is_sharded_where_zero_has_cut_many_weights(tmp_path: Path) -> None:
    class Cut(LocalEngine):
        num_cut = MANY

    for number, is_dir in ((MANY, False), (MANY + 1, True)):
        Cut.num_cut = number
        folder = tmp_path / str(number)
        engine = Cut(nn.Linear(2, 2), OptimizerConfig())
        Saving(CheckpointFolder(folder, 1), engine).copied(1, {}, {})()
        assert (folder / "step-000001/optimizer").is_dir() == is_dir


def test_slices_are_read_in_other_cuts_than_they_were_written(tmp_path: Path) -> None:
    whole = torch.arange(10.0)
    for rank, (start, end) in enumerate([(0, 4), (4, 8), (8, 12)]):  # the last is padded
        padded = torch.cat([whole, torch.full((2,), 99.0)])[start:end]
        write_slices(tmp_path / str(rank), {"weight": cut(padded, start, 10)})
        (file,) = (tmp_path / str(rank)).iterdir()
        file.rename(tmp_path / f"shard-{rank}.safetensors")
        file.parent.rmdir()
    for start, end in [(0, 10), (0, 5), (5, 10), (3, 9), (10, 10)]:
        own = cut(torch.zeros(end - start), start, 10)
        read_slices(tmp_path, {"weight": own})
        assert own.as_subclass(torch.Tensor).tolist() == whole[start:end].tolist()


def test_a_slice_that_is_missing_is_an_error_and_not_zeros(tmp_path: Path) -> None:
    write_slices(tmp_path, {"weight": cut(torch.ones(4), 0, 10)})
    with pytest.raises(CheckpointError, match=r"has 4 of the 10 numbers of weight"):
        read_slices(tmp_path, {"weight": cut(torch.zeros(10))})
    with pytest.raises(CheckpointError, match=r"has 0 of the 1 numbers of step"):
        read_slices(tmp_path, {"step": cut(torch.zeros(()))})


def test_a_lost_file_of_a_rank_makes_the_checkpoint_a_damaged_one(tmp_path: Path) -> None:
    learner, _ = tiny_learner(recipe_of(sharded=True), tmp_path)
    learner.start()
    learner.save({"step": 0}).result()
    (file,) = (tmp_path / "step-000000/optimizer").iterdir()
    file.unlink()
    with pytest.raises(CheckpointError, match=r"optimizer/shard-00001.* has no of its"):
        CheckpointFolder(tmp_path, 2).latest()


def test_parts_from_several_machines_are_one_checkpoint_behind_a_uri(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/bucket"
    first, second = (CheckpointFolder(uri, 2) for _ in range(2))
    first.begin(3, in_parts=True)
    for number, checkpoints in enumerate((first, second)):
        part = checkpoints.partial(3) / "optimizer"
        part.mkdir(parents=True)
        save_file({"weight": torch.full((2,), float(number))}, part / f"shard-{number}.safetensors")
    parts = [first.add_part(3, is_whole=True), second.add_part(3, is_whole=False)]
    assert CheckpointFolder(uri, 2).latest() is None, "not complete yet"
    first.finish(3, {"reference": {"weight": torch.ones(1)}}, {"loop": {}}, parts)
    found = CheckpointFolder(uri, 2).latest()
    assert found is not None
    names = sorted(path.name for path in found[0].rglob("*.safetensors"))
    assert names == ["reference.safetensors", "shard-0.safetensors", "shard-1.safetensors"]
    assert load_file(found[0] / "optimizer/shard-1.safetensors")["weight"].tolist() == [1, 1]
    (tmp_path / "bucket/step-000003/optimizer/shard-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"shard-1.safetensors has no of its"):
        CheckpointFolder(uri, 2).latest()


def test_ranks_without_a_common_folder_are_told(tmp_path: Path) -> None:
    first = CheckpointFolder(tmp_path, 2)
    first.begin(3, in_parts=True)
    with pytest.raises(CheckpointError, match=r"does not have optimizer/shard-2.*checkpoint.locat"):
        first.commit(3, {}, [{"optimizer/shard-2": 10}])
    assert first.steps() == []


def test_a_full_disk_costs_this_checkpoint_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, _ = tiny_learner(recipe_of(sharded=True), tmp_path)
    learner.start()
    learner.save({"step": 0}).result()
    run_steps(learner, 0, 1)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        "torch.distributed.checkpoint.hf_storage.FileSystemWriter._write_data", full
    )
    with pytest.raises(CheckpointError, match="No space left"):
        learner.save({"step": 1}).result()
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000"]
    learner.save({"step": 1}).result()
    assert CheckpointFolder(tmp_path, 2).steps() == [0, 1]
